"""What a renderer looks at: a voxel field of opacities and features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .contracted_grid import ContractedGrid
from .voxel_grid import VoxelGrid


@dataclass(frozen=True, eq=False)
class OccField:
    """Opacity and features of every voxel of B samples. Renderers blend what is here and know nothing of classes.

    Attributes:
        grid: The voxel grid, or a contracted one; its reference frame is that of the cameras and rays. ``grid.centers`` are the
            places of the voxels.
        opacity: (B, X, Y, Z), in [0, 1], of a voxel that a ray crosses from side to side.
        features: (B, C, X, Y, Z), already activated (probabilities, colours, logits to be blended: whatever the target has); or
            (B, X, Y, Z) int64, a class id per voxel that stands for its one-hot row of C numbers.
        background: (C,), what is seen where nothing is.
        scales: (B, X, Y, Z, 3), standard deviations of the voxels as Gaussians, metres; None: the renderer's constant.
        quats: (B, X, Y, Z, 4), unit quaternions w, x, y, z of these Gaussians; None: along the axes.
        keep: (B, X, Y, Z) bool, voxels that take part at all; None: all of them.
        density: (B, X, Y, Z), the raw value per voxel that a ray marcher turns into opacity by its own rule; None: it follows
            from ``opacity``.
    """

    grid: VoxelGrid | ContractedGrid
    opacity: Tensor
    features: Tensor
    background: Tensor
    scales: Tensor | None = None
    quats: Tensor | None = None
    keep: Tensor | None = None
    density: Tensor | None = None

    @classmethod
    def from_labels(cls, labels: Tensor, grid: VoxelGrid, dtype: torch.dtype = torch.float32) -> 'OccField':
        """The field of a label grid: opaque where a class is, nothing where it is free or ignored.

        Args:
            labels: (B, X, Y, Z) int64 class ids and ``grid.ignore_index``.
            grid: The voxel grid.
            dtype: Of the opacity and the background.
        """
        occupied = (labels != grid.free_index) & (labels != grid.ignore_index)
        return cls(grid, occupied.to(dtype), labels, free_background(grid, labels.device, dtype), keep=occupied)

    @property
    def has_ids(self) -> bool:
        """Whether ``features`` are class ids."""
        return not self.features.is_floating_point()

    @property
    def num_features(self) -> int:
        """C."""
        return len(self.background)

    def one_hot(self) -> 'OccField':
        """The same field with rows of numbers instead of class ids; voxels of no class (not kept) get zeros."""
        if not self.has_ids:
            return self
        ids = torch.arange(self.num_features, device=self.features.device).view(1, -1, 1, 1, 1)
        return replace(self, features=(self.features[:, None] == ids).to(self.opacity.dtype))

    def samples(self, indices: Sequence[int]) -> 'OccField':
        """The field of the samples ``indices`` of the batch."""
        indices = list(indices)
        if indices == list(range(len(self.opacity))):
            return self
        names = ('opacity', 'features', 'scales', 'quats', 'keep', 'density')
        return replace(self, **{n: None if (value := getattr(self, n)) is None else value[indices] for n in names})


def free_background(grid: VoxelGrid, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """(C,), the one-hot row of the free class: what a camera sees where no voxel is."""
    background = torch.zeros(grid.num_classes, dtype=dtype, device=device)
    background[grid.free_index] = 1
    return background
