"""The benchmarks: grid, classes, colours, masks, splits and label files of each, written down once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .benchmark_classes import KITTI360_COLORS, NUSCENES_COLORS, Color
from .masks import MASK_KEYS
from .voxel_grid import VoxelGrid, plain_class_name


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark: its data and how it counts.

    Attributes:
        name: Name used in configs and on the command line.
        title: Name used in texts.
        grid: Grid with its classes, free id and ignored label.
        colors: RGB of every class in the order of the ids, as published.
        mask: Voxels that count besides ``gt != ignore_index``, a key of ``MASK_FIELDS``.
        label_format: ``'dense'`` (X, Y, Z) or ``'rows'`` of voxels that are not free, see ``datasets.label_formats``.
        label_masks: Masks in a label file.
        label_files: How label files lie in their folder; finding them goes by this text, see ``datasets.scored_frames``.
        splits: Number of frames of each split.
        split: The split that published numbers are given for.
        final_splits: Number of frames of splits in a later release, which its maintainers call final; numbers of the two cannot
            be compared.
        gaussian_per_voxel: Standard deviation of the Gaussians of the published image metrics, in voxels.
    """

    name: str
    title: str
    grid: VoxelGrid
    colors: tuple[Color, ...]
    mask: str
    label_format: str
    label_masks: tuple[str, ...]
    label_files: str
    splits: Mapping[str, int]
    split: str
    gaussian_per_voxel: float
    final_splits: Mapping[str, int] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Number of frames of the split that published numbers are given for."""
        return self.splits[self.split]

    def frame_counts(self, split: str) -> tuple[int, ...]:
        """Numbers of frames that releases of a split have, that of the published numbers first."""
        return tuple(dict.fromkeys(counts[split] for counts in (self.splits, self.final_splits) if split in counts))

    def incomparable(self, frames: int) -> str:
        """Why numbers over so many frames cannot be compared with published ones, '' if they can."""
        if frames == self.frames:
            return ''
        if frames in self.frame_counts(self.split):
            return (
                f'{frames} frames are the {self.split} split of the later release that its maintainers call final; most '
                f'published numbers are those of {self.frames} frames'
            )
        return f'{frames} of {self.frames} {self.split} frames'

    @property
    def palette(self) -> dict[str, Color]:
        """RGB of every class but the free one by its name."""
        return {self.grid.class_names[c]: self.colors[c] for c in self.grid.semantic_classes}

    @property
    def metainfo(self) -> dict:
        """``METAINFO`` of the benchmark's data set."""
        return dict(dataset=self.name, classes=self.grid.class_names, palette=self.colors)

    def check_classes(self, grid: VoxelGrid) -> None:
        """Raises ValueError if the benchmark's labels do not fit a grid: another frame, free id or number of classes."""
        found = (grid.frame, grid.free_index, grid.num_classes)
        expected = (self.grid.frame, self.grid.free_index, self.grid.num_classes)
        if found != expected:
            raise ValueError(
                f'{self.title} labels need grid.frame, grid.free_index and number of grid.class_names {expected}, got {found}; '
                'take the grid of the matching file in configs/_base_/datasets'
            )

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
                if plain_class_name(grid.class_names[c]) != plain_class_name(ours.class_names[c]):
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


_NUSCENES_SPLITS = {'train': 28130, 'val': 6019}
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name='occ3d',
            title='Occ3D-nuScenes',
            grid=VoxelGrid(
                point_cloud_range=(-40, -40, -1, 40, 40, 5.4),
                voxel_size=0.4,
                shape=(200, 200, 16),
                frame='ego',
                ahead='x',
                free_index=17,
                class_names=('others', *NUSCENES_COLORS, 'free'),
            ),
            colors=((0, 0, 0), *NUSCENES_COLORS.values(), (0, 255, 127)),
            mask='camera',
            label_format='dense',
            label_masks=MASK_KEYS,
            label_files='<scene>/<token>/labels.npz',
            splits=_NUSCENES_SPLITS,
            split='val',
            gaussian_per_voxel=0.675,
        ),
        Benchmark(
            name='surroundocc',
            title='SurroundOcc-nuScenes',
            grid=VoxelGrid(
                point_cloud_range=(-50, -50, -5, 50, 50, 3),
                voxel_size=0.5,
                shape=(200, 200, 16),
                frame='lidar',
                ahead='y',
                free_index=0,
                class_names=('empty', *NUSCENES_COLORS),
            ),
            colors=((0, 0, 0), *NUSCENES_COLORS.values()),
            mask='none',
            label_format='rows',
            label_masks=(),
            label_files='<LiDAR file>.npy',
            splits=_NUSCENES_SPLITS,
            split='val',
            gaussian_per_voxel=0.5,
        ),
        Benchmark(
            name='sscbench-kitti360',
            title='SSCBench-KITTI-360',
            grid=VoxelGrid(
                point_cloud_range=(0, -25.6, -2, 51.2, 25.6, 4.4),
                voxel_size=0.2,
                shape=(256, 256, 32),
                frame='lidar',
                ahead='x',
                free_index=0,
                class_names=('empty', *KITTI360_COLORS),
            ),
            colors=((0, 0, 0), *KITTI360_COLORS.values()),
            mask='none',
            label_format='dense',
            label_masks=(),
            label_files='<drive>/<frame>_1_1.npy or <drive>/voxels/<frame>.label',
            splits={'train': 8487, 'val': 1812, 'trainval': 8487 + 1812, 'test': 2566},
            split='test',
            gaussian_per_voxel=0.5,
            final_splits={'train': 8483, 'val': 1812, 'trainval': 8483 + 1812, 'test': 2165},
        ),
    )
}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in BENCHMARKS:
        raise ValueError(f'unknown benchmark {name!r}; known are {tuple(BENCHMARKS)}')
    return BENCHMARKS[name]


def free_space_elsewhere(counts: np.ndarray, grid: VoxelGrid) -> str:
    """A sentence if class ids look numbered as in another benchmark, else ''.

    Args:
        counts: (C,) voxels by class id; free space is most of every scene.
        grid: The grid that they are taken for.
    """
    most = int(counts.argmax())
    others = [bench for bench in BENCHMARKS.values() if bench.grid.free_index == most]
    if most == grid.free_index or not others:
        return ''
    return (
        f'{100 * counts[most] / counts.sum():.0f} % of all voxels are class {most} ({grid.class_names[most]!r}), which is free '
        f'space in {" and ".join(bench.name for bench in others)}; here it is class {grid.free_index}'
    )


def _outside(inner: VoxelGrid, outer: VoxelGrid, tolerance: float = 1e-6) -> bool:
    lower = any(a < b - tolerance for a, b in zip(inner.lower, outer.lower, strict=True))
    return lower or any(a > b + tolerance for a, b in zip(inner.upper, outer.upper, strict=True))
