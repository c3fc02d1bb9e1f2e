"""Geometry and classes of a voxel grid, written once in a dataset's base config and handed to everything that needs it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

FRAMES = ('lidar', 'ego')
# where a grid does not say which axis points ahead of the vehicle
AHEAD = {'lidar': 'y', 'ego': 'x'}

# Names of the arrays that tell the grid of an ``.npz`` of class ids.
STORED_REQUIRED = ('point_cloud_range', 'voxel_size', 'frame', 'free_index', 'class_names')
STORED_FIELDS = (*STORED_REQUIRED, 'ignore_index', 'ahead')


def plain_class_name(name: str) -> str:
    """Class name without the differences that spelling habits make."""
    return name.lower().replace('-', '_').replace(' ', '_').removesuffix('s')


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid in a metric reference frame and the meaning of its labels.

    Arrays over the grid are indexed ``volume[ix, iy, iz]``; flattened with z fastest. The centre of a voxel is
    ``lower + (index + 0.5) * voxel_size``.

    Args:
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max), metres, in ``frame``.
        voxel_size: Edge length in metres, one number or one per axis.
        shape: Number of voxels (X, Y, Z).
        frame: ``'lidar'`` (LIDAR_TOP / Velodyne of the key frame) or ``'ego'`` (ego vehicle at LiDAR time).
        free_index: Class id of empty space.
        ignore_index: Label that takes part in no loss and no metric.
        class_names: Names of all classes including the free one, in the order of their ids.
        ahead: Axis along which the vehicle looks, ``'x'`` or ``'y'``; y (or -x) is then to its left. None: ``'x'`` for
            ``'ego'``, ``'y'`` for ``'lidar'`` (LIDAR_TOP of nuScenes; the Velodyne of KITTI looks along x).

    Raises:
        ValueError: If the numbers do not agree with each other.
    """

    point_cloud_range: tuple[float, ...]
    voxel_size: float | tuple[float, float, float]
    shape: tuple[int, int, int]
    frame: str
    free_index: int
    ignore_index: int = 255
    class_names: tuple[str, ...] = ()
    ahead: str | None = None

    def __post_init__(self) -> None:
        pc_range = tuple(float(v) for v in self.point_cloud_range)
        size = self.voxel_size
        size = (float(size),) * 3 if np.isscalar(size) else tuple(float(v) for v in size)
        shape = tuple(int(n) for n in self.shape)
        if len(pc_range) != 6 or any(lo >= hi for lo, hi in zip(pc_range[:3], pc_range[3:])):
            raise ValueError(
                f'grid.point_cloud_range must be (x_min, y_min, z_min, x_max, y_max, z_max) with min < max, got {pc_range}'
            )
        if len(size) != 3 or min(size) <= 0:
            raise ValueError(f'grid.voxel_size must be one or three positive lengths in metres, got {self.voxel_size}')
        expected = tuple(round((pc_range[i + 3] - pc_range[i]) / size[i]) for i in range(3))
        if shape != expected:
            raise ValueError(
                f'grid.shape {shape} does not fit point_cloud_range {pc_range} with voxel_size {size}: expected {expected}'
            )
        if self.frame not in FRAMES:
            raise ValueError(f'grid.frame must be one of {FRAMES}, got {self.frame!r}')
        ahead = AHEAD[self.frame] if self.ahead is None else self.ahead
        if ahead not in ('x', 'y'):
            raise ValueError(f"grid.ahead must be 'x' or 'y', or None for the axis of its frame, got {self.ahead!r}")
        names = tuple(self.class_names)
        if len(names) < 2:
            raise ValueError(f'grid.class_names must name every class including the free one, got {names}')
        if not 0 <= self.free_index < len(names):
            raise ValueError(f'grid.free_index must lie in 0..{len(names) - 1}, got {self.free_index}')
        # labels are stored in eight bits, in files and in memory
        if len(names) > 255:
            raise ValueError(
                f'grid.class_names lists {len(names)} classes; ids have 8 bits and one is ignored, so 255 are the most'
            )
        if self.ignore_index not in range(256):
            raise ValueError(
                f'grid.ignore_index must lie in 0..255, because ids have 8 bits, got {self.ignore_index}; use 255 and write '
                'it into the labels instead'
            )
        if 0 <= self.ignore_index < len(names):
            raise ValueError(f'grid.ignore_index {self.ignore_index} is also the class {names[self.ignore_index]!r}')
        fields = dict(point_cloud_range=pc_range, voxel_size=size, shape=shape, class_names=names, ahead=ahead)
        for key, value in fields.items():
            object.__setattr__(self, key, value)

    @classmethod
    def build(cls, grid: Union['VoxelGrid', Mapping[str, Any]]) -> 'VoxelGrid':
        """Returns ``grid`` itself or the grid that a config dict describes.

        Raises:
            TypeError: If ``grid`` is neither, or the dict has missing or unknown keys.
        """
        if isinstance(grid, cls):
            return grid
        if not isinstance(grid, Mapping):
            raise TypeError(f'grid must be a VoxelGrid or a dict of its fields, got {type(grid).__name__}')
        try:
            return cls(**grid)
        except TypeError as error:
            raise TypeError(f'grid must have the keys {tuple(cls.__dataclass_fields__)}: {error}') from None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Union['VoxelGrid', None]:
        """The grid of a file that :meth:`to_arrays` was written to, None if the file does not tell it.

        Raises:
            ValueError: If what the file says is no grid.
        """
        if not set(STORED_REQUIRED) <= set(arrays):
            return None
        fields: dict[str, Any] = {key: arrays[key].tolist() for key in STORED_FIELDS if key in arrays}
        try:
            low, high = np.array(fields['point_cloud_range'], dtype=np.float64).reshape(2, 3)
            # of files in single precision
            bounds = np.round([*low, *high], 5).tolist()
            size = np.round(np.broadcast_to(fields['voxel_size'], 3).astype(np.float64), 5).tolist()
            shape = tuple(round(n) for n in (high - low) / size)
            fields.update(
                point_cloud_range=bounds, voxel_size=size, shape=shape, class_names=tuple(map(str, fields['class_names']))
            )
            return cls(**fields)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(f'the grid that it tells is none ({error})') from error

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What tells the grid in an ``.npz`` beside class ids; their shape is that of the grid."""
        return {key: np.asarray(value) for key, value in asdict(self).items() if key in STORED_FIELDS}

    def differences(self, other: 'VoxelGrid') -> list[str]:
        """How another grid places voxels or numbers classes in another way; spelling does not count, nor how free is called."""
        found = [
            f'{key} {getattr(other, key)} instead of {getattr(self, key)}'
            for key in ('point_cloud_range', 'voxel_size')
            if not np.allclose(getattr(other, key), getattr(self, key), atol=1e-4)
        ]
        found += [
            f'{key} {getattr(other, key)!r} instead of {getattr(self, key)!r}'
            for key in ('shape', 'frame', 'ahead', 'free_index', 'num_classes')
            if getattr(other, key) != getattr(self, key)
        ]
        if self.num_classes == other.num_classes and self.free_index == other.free_index:
            for index in self.semantic_classes:
                own, name = self.class_names[index], other.class_names[index]
                if plain_class_name(own) != plain_class_name(name):
                    return [*found, f'class {index} {name!r} instead of {own!r}']
        return found

    @property
    def num_classes(self) -> int:
        """Number of classes including the free one."""
        return len(self.class_names)

    @property
    def num_voxels(self) -> int:
        """X * Y * Z."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def lower(self) -> tuple[float, float, float]:
        """Lower corner (x, y, z), metres."""
        return self.point_cloud_range[:3]

    @property
    def upper(self) -> tuple[float, float, float]:
        """Upper corner (x, y, z), metres."""
        return self.point_cloud_range[3:]

    @property
    def extent(self) -> tuple[float, float, float]:
        """Edge lengths (x, y, z) of the whole grid, metres."""
        return tuple(hi - lo for lo, hi in zip(self.lower, self.upper))

    @property
    def ahead_axis(self) -> int:
        """Index of the axis that points ahead of the vehicle, 0 or 1; the other one runs from side to side."""
        return 'xy'.index(self.ahead)

    @property
    def semantic_classes(self) -> tuple[int, ...]:
        """Ids of all classes but the free one."""
        return tuple(c for c in range(self.num_classes) if c != self.free_index)

    def centers(self, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Voxel centres, (X, Y, Z, 3), metres, in ``frame``."""
        axes = [
            self.lower[i] + (torch.arange(self.shape[i], device=device, dtype=dtype) + 0.5) * self.voxel_size[i]
            for i in range(3)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)

    def index_to_point(self, index: np.ndarray) -> np.ndarray:
        """Metric centres (..., 3) float64 of integer voxel indices (..., 3)."""
        return np.asarray(self.lower) + (np.asarray(index, dtype=np.float64) + 0.5) * np.asarray(self.voxel_size)

    def point_to_index(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Voxels that contain points.

        Args:
            points: (..., 3), metres, in ``frame``.

        Returns:
            Indices (..., 3) int64, ``floor((point - lower) / voxel_size)``, and a bool array (...), True inside the grid.
        """
        scaled = (np.asarray(points, dtype=np.float64) - np.asarray(self.lower)) / np.asarray(self.voxel_size)
        index = np.floor(scaled).astype(np.int64)
        inside = ((index >= 0) & (index < np.asarray(self.shape))).all(-1)
        return index, inside

    def check_labels(self, labels: np.ndarray | Tensor, origin: str = 'labels') -> None:
        """Raises ValueError if a label volume has another shape or ids that are neither a class nor ``ignore_index``."""
        if tuple(labels.shape[-3:]) != self.shape:
            raise ValueError(
                f'{origin}: expected a label volume of shape {self.shape} (grid.shape), got {tuple(labels.shape)}; '
                'check that the labels and the config describe the same benchmark'
            )
        bad = (labels != self.ignore_index) & ((labels < 0) | (labels >= self.num_classes))
        if bad.any():
            raise ValueError(
                f'{origin}: class id {int(labels[bad].max())} is outside 0..{self.num_classes - 1} and is not '
                f'ignore_index {self.ignore_index}; check grid.class_names against the label files'
            )
