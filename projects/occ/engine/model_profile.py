"""Where time and arithmetic of a model go: part by part, in prediction or in a training step."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_FOREIGN = {name for kind in (nn.Module, BaseModule, object) for name in vars(kind)}


@dataclass
class PartProfile:
    """One part of a model.

    Attributes:
        name: Dotted name below the model, or ``'backward'``, ``'optimizer'``, ``'other'``.
        parameters: Number of parameters in it.
        seconds: Median time of a step spent in it.
        flops: Floating-point operations of convolutions and matrix products in it, a multiplication and an addition being two.
    """

    name: str
    parameters: int = 0
    seconds: float = 0.0
    flops: int = 0


@dataclass
class ModelProfile:
    """What :func:`profile_steps` measured.

    Attributes:
        parameters: All parameters of the model.
        trainable: Those of them that are trained.
        seconds: Median time of a step.
        flops: See :class:`PartProfile`.
        peak_bytes: Largest memory during the steps: on a GPU what torch allocated, on a CPU the resident memory of the whole
            process; None where the system does not tell.
        before_bytes: The same before the first step, with the weights.
        parts: The parts, in the order of the model, without those that took no time and have no parameters.
    """

    parameters: int
    trainable: int
    seconds: float
    flops: int
    peak_bytes: int | None
    before_bytes: int | None
    parts: list[PartProfile] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations by torch's formulas, and those of the products inside mmcv's deformable convolution.

    ``torch.utils.flop_counter.FlopCounterMode`` also follows modules by hooks, which fail where parameters pass between modules
    without gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += int(flop_registry[packet](*args, **(kwargs or {}), out_val=out))
        elif packet is torch.ops.aten.addmm_:
            self.total += 2 * args[1].numel() * args[2].shape[1]
        return out


def parts_of(model: nn.Module, depth: int = 1) -> dict[str, nn.Module]:
    """The modules of a model down to a depth, dotted names; lists of modules do not count as a level."""
    found: dict[str, nn.Module] = {}

    def visit(module: nn.Module, prefix: str, level: int) -> None:
        for name, child in module.named_children():
            container = isinstance(child, (nn.ModuleList, nn.ModuleDict))
            if not container:
                found[prefix + name] = child
            if container or level < depth:
                visit(child, f'{prefix}{name}.', level + (not container))

    visit(model, '', 1)
    return found


@contextmanager
def metered(objects: Mapping[str, tuple[Any, list[str]]], read: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Sums up by how much a meter moves inside methods.

    Of methods that call each other only the innermost counts, so that the sums add up.

    Args:
        objects: Name -> object and its methods.
        read: Reads the meter.

    Yields:
        Name -> sum; complete when the context is left.
    """
    sums = dict.fromkeys(objects, 0.0)
    inner = [0.0]
    replaced = []

    def wrap(name: str, method: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = read()
            inner.append(0.0)
            try:
                return method(*args, **kwargs)
            finally:
                passed = read() - start
                sums[name] += passed - inner.pop()
                inner[-1] += passed

        return call

    try:
        for name, (owner, methods) in objects.items():
            for method in methods:
                replaced.append((owner, method, vars(owner).get(method)))
                vars(owner)[method] = wrap(name, getattr(owner, method))
        yield sums
    finally:
        for owner, method, old in reversed(replaced):
            if old is None:
                del vars(owner)[method]
            else:
                vars(owner)[method] = old


def _methods(module: nn.Module) -> list[str]:
    """``forward`` and the public methods that a module adds to those of every module: losses, for example."""
    names = ['forward']
    for kind in type(module).__mro__:
        if kind.__module__.split('.')[0] in ('torch', 'mmengine', 'builtins', 'abc'):
            continue
        for name, value in vars(kind).items():
            plain = callable(value) and not isinstance(value, (staticmethod, classmethod, type))
            if plain and not name.startswith('_') and name not in _FOREIGN and name not in names:
                names.append(name)
    return names


def profile_steps(
    model: nn.Module,
    step: Callable[[], Any],
    steps: int = 5,
    warmup: int = 2,
    depth: int = 1,
    optim_wrapper: Any = None,
) -> ModelProfile:
    """Measures a step of a model.

    Args:
        model: The model, on its device.
        step: Does one step: a prediction, or a training step.
        steps: Timed steps; medians count.
        warmup: Steps before them.
        depth: How deep parts are looked at.
        optim_wrapper: Of a training step; its backward pass and its update are parts of their own.

    Returns:
        Time, arithmetic, memory and the share of every part. The last part is ``'other'``.
    """
    device = next(model.parameters()).device
    gpu = device.type == 'cuda'

    def now() -> float:
        if gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    modules = parts_of(model, depth)
    objects: dict[str, tuple[Any, list[str]]] = {name: (module, _methods(module)) for name, module in modules.items()}
    if optim_wrapper is not None:
        objects |= {'backward': (optim_wrapper, ['backward']), 'optimizer': (optim_wrapper, ['step', 'zero_grad'])}
    before = _reset_peak(device)
    for _ in range(warmup):
        step()
    runs, totals = [], []
    for _ in range(steps):
        with metered(objects, now) as seconds:
            start = now()
            step()
            totals.append(now() - start)
        runs.append(seconds)
    peak = _peak(device)
    with FlopCounter() as counter, metered(objects, lambda: counter.total) as flops:
        step()

    parts = []
    for name in objects:
        # weights of deeper parts are theirs
        parameters = sum(p.numel() for p in modules[name].parameters()) if name in modules else 0
        if depth > 1 and name in modules:
            children = [m for other, m in parts_of(modules[name], 1).items() if f'{name}.{other}' in modules]
            parameters -= sum(p.numel() for child in children for p in child.parameters())
        parts.append(PartProfile(name, parameters, median(run[name] for run in runs), int(flops[name])))
    rest = median(total - sum(run.values()) for total, run in zip(totals, runs))
    parts = [part for part in parts if part.seconds or part.parameters]
    parts.append(PartProfile('other', 0, max(rest, 0.0), counter.total - sum(part.flops for part in parts)))
    return ModelProfile(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=median(totals),
        flops=counter.total,
        peak_bytes=peak,
        before_bytes=before,
        parts=parts,
    )


def _status_bytes(key: str) -> int | None:
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{key}:')), None)


def _reset_peak(device: torch.device) -> int | None:
    """Starts the measurement of the largest memory and returns what is used now."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        # the largest memory since the start of the process, then
        pass
    return _status_bytes('VmRSS')


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else _status_bytes('VmHWM')
