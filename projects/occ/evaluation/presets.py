"""How each benchmark counts: classes, free id, ignored label, mask, range. Checked against the grid of a config."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..structures import VoxelGrid
from ..structures.benchmark_classes import KITTI360_CLASSES, NUSCENES_CLASSES

# fields of a data sample that must all be set for a voxel to count
MASK_FIELDS = {
    'none': (),
    'camera': ('mask_camera',),
    'lidar': ('mask_lidar',),
    'both': ('mask_camera', 'mask_lidar'),
}


@dataclass(frozen=True)
class EvaluationPreset:
    """The published protocol of one benchmark.

    Attributes:
        name: Name used in configs and on the command line.
        grid: Grid of the benchmark with its classes, free id and ignored label.
        mask: Voxels that count besides ``gt != ignore_index``: ``'none'``, ``'camera'``, ``'lidar'`` or ``'both'``.
        split: The split that published numbers are given for.
        frames: Number of frames of that split.
        gaussian_per_voxel: Standard deviation of the Gaussians of the published image metrics, in voxels.
    """

    name: str
    grid: VoxelGrid
    mask: str
    split: str
    frames: int
    gaussian_per_voxel: float

    def gaussian_scale(self, grid: VoxelGrid) -> float:
        """Standard deviation of the Gaussians that image metrics render, metres: the published one on the benchmark's grid."""
        return round(self.gaussian_per_voxel * min(grid.voxel_size), 6)

    def check(self, grid: VoxelGrid) -> bool:
        """Compares a grid with the one of the benchmark.

        Returns:
            True if the grid is the benchmark's own, False if it has the same classes but is coarser or smaller, so that numbers
            cannot be compared with published ones.

        Raises:
            ValueError: If classes, free id, ignored label, frame or range do not fit; names every mismatch.
        """
        ours, problems = self.grid, []
        if grid.num_classes != ours.num_classes:
            problems.append(f'{grid.num_classes} classes instead of {ours.num_classes}')
        else:
            for c in ours.semantic_classes:
                if _plain(grid.class_names[c]) != _plain(ours.class_names[c]):
                    problems.append(f'class {c} is {grid.class_names[c]!r} instead of {ours.class_names[c]!r}')
        for key in ('free_index', 'ignore_index', 'frame'):
            if getattr(grid, key) != getattr(ours, key):
                problems.append(f'{key} {getattr(grid, key)!r} instead of {getattr(ours, key)!r}')
        if _outside(grid, ours):
            problems.append(f'point_cloud_range {grid.point_cloud_range} is not inside {ours.point_cloud_range}')
        if any(size < own - 1e-6 for size, own in zip(grid.voxel_size, ours.voxel_size, strict=True)):
            problems.append(f'voxel_size {grid.voxel_size} is finer than {ours.voxel_size}')
        if problems:
            raise ValueError(
                f'preset {self.name!r} does not fit the grid: {"; ".join(problems)}. '
                'Choose the preset of the dataset or preset=None with explicit mask and absent'
            )
        return grid.shape == ours.shape and not _outside(ours, grid)


def _plain(name: str) -> str:
    """Class name without the differences that spelling habits make."""
    return name.lower().replace('-', '_').replace(' ', '_').removesuffix('s')


def _outside(inner: VoxelGrid, outer: VoxelGrid, tolerance: float = 1e-6) -> bool:
    lower = any(a < b - tolerance for a, b in zip(inner.lower, outer.lower, strict=True))
    return lower or any(a > b + tolerance for a, b in zip(inner.upper, outer.upper, strict=True))


def _preset(name: str, classes: Sequence[str], mask: str, split: str, frames: int, gaussian: float, **grid) -> EvaluationPreset:
    return EvaluationPreset(name, VoxelGrid(class_names=tuple(classes), **grid), mask, split, frames, gaussian)


PRESETS = {
    preset.name: preset
    for preset in (
        _preset(
            'occ3d',
            mask='camera',
            split='val',
            frames=6019,
            gaussian=0.675,
            classes=('others', *NUSCENES_CLASSES, 'free'),
            point_cloud_range=(-40, -40, -1, 40, 40, 5.4),
            voxel_size=0.4,
            shape=(200, 200, 16),
            frame='ego',
            free_index=17,
        ),
        _preset(
            'surroundocc',
            mask='none',
            split='val',
            frames=6019,
            gaussian=0.5,
            classes=('free', *NUSCENES_CLASSES),
            point_cloud_range=(-50, -50, -5, 50, 50, 3),
            voxel_size=0.5,
            shape=(200, 200, 16),
            frame='lidar',
            free_index=0,
        ),
        _preset(
            'sscbench-kitti360',
            mask='none',
            split='test',
            frames=2566,
            gaussian=0.5,
            classes=('free', *KITTI360_CLASSES),
            point_cloud_range=(0, -25.6, -2, 51.2, 25.6, 4.4),
            voxel_size=0.2,
            shape=(256, 256, 32),
            frame='lidar',
            free_index=0,
        ),
    )
}


def get_preset(name: str) -> EvaluationPreset:
    """The preset of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in PRESETS:
        raise ValueError(f'unknown evaluation preset {name!r}; known are {tuple(PRESETS)}')
    return PRESETS[name]
