"""Draws the cameras of a training step, reproducibly across restarts and ranks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projects.occ.structures import Cameras, VoxelGrid

from .camera_strategies import build_camera_strategy


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


class CameraSampler(nn.Module):
    """Chooses real cameras and lets a strategy move them.

    Every step has a random generator of its own, seeded by (seed, rank, number of earlier steps). The only state is therefore
    that number: it is kept in checkpoints under ``_extra_state``, so that a resumed run draws the cameras that an uninterrupted
    one would have drawn, on every rank. Checkpoints without it load strictly; counting then goes on from where it is.

    Args:
        type: Name or class of the strategy.
        grid: Voxel grid, for the strategies that need one.
        num_cameras: Real cameras drawn per step, with replacement, the same for the whole batch; None is 1. Not with
            ``indices``.
        indices: Fixed real cameras instead: a list of indices in the order of the data, one index, or ``'all'``; ``weights``
            is then unused.
        weights: Relative probability of each real camera in the order of the data; None is uniform. The published nuScenes
            runs used (2, 1, 1, 2, 1, 1): front and back twice as often.
        reduction: Rendered images are smaller by this factor.
        seed: Seed of the draws, not negative.
        **arguments: Arguments of the strategy.

    Raises:
        ValueError: If the arguments contradict each other.
    """

    def __init__(
        self,
        type: str | type = 'SensorCameras',
        grid: VoxelGrid | Mapping[str, Any] | None = None,
        num_cameras: int | None = None,
        indices: str | int | Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        reduction: float = 1,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.strategy = build_camera_strategy({'type': type, **arguments}, grid)
        if indices is not None and num_cameras is not None:
            raise ValueError(
                f'cameras.indices={indices} fixes the cameras, so cameras.num_cameras={num_cameras}, '
                'which draws them, must be None'
            )
        if isinstance(indices, int):
            indices = [indices]
        if indices is not None and indices != 'all' and (isinstance(indices, str) or len(indices) == 0):
            raise ValueError(f"cameras.indices must be a list of camera indices or 'all', got {indices!r}")
        if num_cameras is not None and num_cameras < 1:
            raise ValueError(f'cameras.num_cameras must be at least 1, got {num_cameras}')
        if weights is not None and (
            not len(weights) or min(weights) < 0 or not math.isfinite(sum(weights)) or sum(weights) <= 0
        ):
            raise ValueError(f'cameras.weights must be non-negative numbers with a positive sum, got {list(weights)}')
        if not reduction >= 1:
            raise ValueError(f'cameras.reduction must be at least 1, got {reduction}')
        if seed < 0:
            raise ValueError(f'cameras.seed must not be negative, got {seed}')
        self.num_cameras = 1 if num_cameras is None else num_cameras
        self.indices = indices
        self.weights = weights
        self.reduction = reduction
        self.seed = seed
        self.steps = 0

    def generator(self) -> torch.Generator:
        """The random generator of the coming step on this rank (CPU)."""
        state = np.random.SeedSequence((self.seed, _rank(), self.steps)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]))

    def draw(self, num_available: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draws the cameras of one step; counts nothing.

        Args:
            num_available: Number N of real cameras.
            generator: Source of randomness; None is the generator of the coming step.

        Returns:
            ``indices`` (n,) int64 and the draws of the strategy.

        Raises:
            ValueError: If ``weights`` has not one entry per real camera.
        """
        generator = self.generator() if generator is None else generator
        if self.indices is not None:
            chosen = torch.arange(num_available) if self.indices == 'all' else torch.as_tensor(self.indices, dtype=torch.long)
        else:
            weights = torch.ones(num_available) if self.weights is None else torch.as_tensor(self.weights, dtype=torch.float32)
            if len(weights) != num_available:
                raise ValueError(
                    f'cameras.weights has {len(weights)} entries, but the batch has {num_available} cameras; '
                    'give one weight per camera or None'
                )
            chosen = torch.multinomial(weights, self.num_cameras, replacement=True, generator=generator)
        return {'indices': chosen, **self.strategy.draw(len(chosen), generator)}

    def place(self, cameras: Cameras, draws: Mapping[str, Tensor]) -> Cameras:
        """The virtual cameras that ``draws`` make of the real ``cameras``; pure."""
        return self.strategy.place(cameras.select(draws['indices']), draws).reduced(self.reduction)

    def forward(self, cameras: Cameras) -> Cameras:
        """Draws, counts the step and returns the virtual cameras."""
        draws = self.draw(cameras.num_cameras)
        self.steps += 1
        return self.place(cameras, draws)

    def get_extra_state(self) -> Tensor:
        """Steps drawn so far, int64 without dimensions; a tensor because checkpoint writers expect tensors."""
        return torch.tensor(self.steps, dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """Continues after ``state`` steps."""
        self.steps = int(state)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        # weights of the original know no such state: its absence is no error
        missing: list[str] = []
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected_keys, error_msgs)
        missing_keys.extend(key for key in missing if key != prefix + '_extra_state')
