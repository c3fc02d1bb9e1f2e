"""Improves a prediction at test time: its logits are moved until what is measured along rays agrees, without a network."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from projects.occ.structures import OccBatch, OccPrediction

from .supervision import RenderSupervision


@dataclass(frozen=True)
class Refinement:
    """What came of it.

    Attributes:
        logits: (B, C, X, Y, Z), without gradient.
        losses: Sum of the rendered terms before each step.
        seconds: That it took, without watching.
    """

    logits: Tensor
    losses: list[float]
    seconds: float


def refine_logits(
    logits: Tensor,
    batch: OccBatch,
    supervision: RenderSupervision,
    steps: int = 30,
    rate: float = 0.3,
    anchor: float = 1.0,
    seconds: float | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Refinement:
    """Descends the rendered losses from the logits of a network (Adam), held by the network's own opinion.

    Args:
        logits: (B, C, X, Y, Z), or logarithms of probabilities.
        batch: What the supervision reads, for example measured rays.
        supervision: Whose field is made of logits.
        steps: At most.
        rate: Of Adam, in logits.
        anchor: Weight of the Kullback-Leibler divergence from the given probabilities, mean over the voxels; keeps what no ray
            tells anything about.
        seconds: Stop after this time, watching not counted; None: only after ``steps``.
        watch: Called with the number of the step and the logits before it, and once at the end.

    Raises:
        ValueError: If ``steps``, ``rate`` or ``anchor`` is negative, or the losses are not finite.
    """
    if steps < 0 or rate <= 0 or anchor < 0:
        raise ValueError(
            f'refine_logits: steps and anchor must not be negative and rate positive, got {steps}, {anchor}, {rate}'
        )
    start = time.monotonic()
    given = logits.detach().float()
    before = given.log_softmax(1)
    moved = given.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=rate)
    losses: list[float] = []
    for step in range(steps):
        if watch is not None:
            begin = time.monotonic()
            watch(step, moved.detach())
            start += time.monotonic() - begin
        terms = sum(supervision.loss(OccPrediction([moved]), batch).values())
        losses.append(terms.item())
        if not torch.isfinite(terms):
            raise ValueError(f'refine_logits: the rendered losses are not finite at step {step}; take a smaller rate')
        after = moved.log_softmax(1)
        divergence = (before.exp() * (before - after)).sum(1).mean()
        optimizer.zero_grad()
        (terms + anchor * divergence).backward()
        optimizer.step()
        if seconds is not None and time.monotonic() - start > seconds:
            break
    took = time.monotonic() - start
    if watch is not None:
        watch(len(losses), moved.detach())
    return Refinement(moved.detach(), losses, took)
