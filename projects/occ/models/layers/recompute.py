"""Activation checkpointing that leaves the statistics of batch normalisation as they would be without it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def _statistics_at_rest(norms: list[_BatchNorm]) -> Iterator[None]:
    """Lets norms count batches in copies of their statistics, which are then thrown away."""
    before = [dict(norm._buffers) for norm in norms]
    try:
        for norm in norms:
            norm._buffers.update({name: None if value is None else value.clone() for name, value in norm._buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, before):
            norm._buffers.update(buffers)


def recompute(module: nn.Module, *args: Any, function: Callable[..., Any] | None = None) -> Any:
    """Calls a part of a network now and, instead of keeping its activations, once more in the backward pass.

    Running means and variances of batch norms inside ``module`` are updated once. Works with distributed training
    (``use_reentrant=False``). Without gradients it is a plain call.

    Args:
        module: The part; whatever it contains may be batch-normalised, synchronised or not.
        *args: Passed on.
        function: What to call instead of ``module``: a function that uses parts of ``module``.

    Returns:
        What the call returns.
    """
    function = module if function is None else function
    if not torch.is_grad_enabled():
        return function(*args)
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    contexts = (contextlib.nullcontext, lambda: _statistics_at_rest(norms))
    return checkpoint(function, *args, use_reentrant=False, context_fn=lambda: tuple(make() for make in contexts))
