"""Looks into single files of a data root: images, labels, LiDAR sweeps, depth maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.occ.datasets.label_formats import LabelError, labels_from_arrays
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS
from projects.occ.file_arrays import load_arrays
from projects.occ.image_files import ImageError, check_whole_image
from projects.occ.structures import VoxelGrid
from projects.occ.structures.masks import MASK_KEYS

from .findings import Finding

_POINT_BYTES = 4 * NUSCENES_POINT_DIMS


def check_image(path: Path) -> tuple[list[Finding], tuple[int, int] | None]:
    """Findings about an image, and its width and height if it can be read."""

    def found(kind: str, message: str) -> tuple[list[Finding], None]:
        return [Finding(kind, str(path), message)], None

    if not path.is_file():
        return found('image-missing', 'does not exist')
    data = path.read_bytes()
    try:
        return [], check_whole_image(data)
    except ImageError as error:
        return found('image-damaged', f'{error} ({len(data)} bytes)')


def check_lidar(path: Path) -> list[Finding]:
    """Findings about a LiDAR file; it may be missing, camera models read none."""
    if path.is_file() and (path.stat().st_size == 0 or path.stat().st_size % _POINT_BYTES):
        size = path.stat().st_size
        message = f'has {size} bytes; expected {_POINT_BYTES} per point (five float32), so it is empty or cut short'
        return [Finding('lidar-damaged', str(path), message)]
    return []


def check_label(
    path: Path, grid: VoxelGrid, remedy: str = 'unpack the labels again', masks: Sequence[str] = MASK_KEYS
) -> tuple[list[Finding], np.ndarray]:
    """Findings about a label file, and how often each label value occurs in memory, (256,) int64.

    Args:
        path: The file.
        grid: Its grid.
        remedy: What to do if it is missing or damaged.
        masks: Masks that an ``.npz`` must hold.
    """
    counts = np.zeros(256, dtype=np.int64)
    findings, arrays = _load(path, 'label', remedy)
    if findings:
        return findings, counts

    def found(kind: str, message: str) -> None:
        findings.append(Finding(kind, str(path), message))

    try:
        labels, seen = labels_from_arrays(arrays, grid, str(path), masks if path.suffix == '.npz' else ())
    except LabelError as error:
        for kind, message in error.problems:
            found(kind, message)
        return findings, counts
    counts = np.bincount(labels.reshape(-1), minlength=256)
    if not counts[list(grid.semantic_classes)].any():
        found('label-empty', 'no voxel has a class')
    for name, mask in seen.items():
        if not mask.any():
            found('mask-empty', f'{name} is 0 everywhere, so no voxel would be evaluated')
    rows = arrays.get('')
    if rows is not None and rows.ndim == 2 and len(np.unique(rows[:, :3], axis=0)) < len(rows):
        found('label-class', 'lists a voxel more than once')
    return findings, counts


def _load(path: Path, what: str, remedy: str) -> tuple[list[Finding], dict[str, np.ndarray]]:
    """Arrays of a file, or findings why there are none; their kinds begin with ``what``."""
    try:
        return [], load_arrays(path, what, remedy)
    except (FileNotFoundError, ValueError) as error:
        kind = f'{what}-missing' if isinstance(error, FileNotFoundError) else f'{what}-damaged'
        return [Finding(kind, str(path), str(error).removeprefix(f"{what}: '{path}' "))], {}


def check_depth(path: Path, image_wh: tuple[int, int]) -> list[Finding]:
    """Findings about a depth map, a ``.npy`` of (H, W) floats in metres; see :class:`LoadDepthMaps`."""
    findings, arrays = _load(path, 'depth', 'make it again from the stereo images')
    if findings:
        return findings
    depth, shape = arrays.get(''), image_wh[::-1]
    if depth is None or depth.dtype.kind != 'f' or depth.shape != shape:
        found = f'an archive of {sorted(arrays)}' if depth is None else f'{depth.dtype} {depth.shape}'
        return [Finding('depth-shape', str(path), f'holds {found}; expected floats of the shape of the images, {shape}')]
    bad = ~np.isfinite(depth) | (depth < 0)
    if bad.any():
        message = f'{bad.sum()} pixels are negative or not finite (the first is {depth[bad][0]}); expected metres, 0 for none'
        return [Finding('depth-values', str(path), message)]
    if not depth.any():
        return [Finding('depth-values', str(path), 'is 0 everywhere: no pixel has a depth')]
    return []
