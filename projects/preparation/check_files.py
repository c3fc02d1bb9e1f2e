"""Looks into single files of a data root: images, labels of the two nuScenes benchmarks, LiDAR sweeps, depth maps."""

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from projects.occ.datasets.transforms.loading import is_complete
from projects.occ.structures import VoxelGrid

from .findings import Finding

_POINT_BYTES = 20  # x, y, z, intensity, ring as float32


def check_image(path: Path) -> tuple[list[Finding], tuple[int, int] | None]:
    """Findings about an image, and its width and height if it can be read."""

    def found(kind: str, message: str) -> tuple[list[Finding], None]:
        return [Finding(kind, str(path), message)], None

    if not path.is_file():
        return found('image-missing', 'does not exist')
    data = path.read_bytes()
    if not data:
        return found('image-damaged', 'is empty (0 bytes)')
    try:
        size = Image.open(io.BytesIO(data)).size
    except (UnidentifiedImageError, OSError, SyntaxError):
        return found('image-damaged', f'is no image that can be read ({len(data)} bytes)')
    if not is_complete(data):
        return found('image-damaged', f'is cut short ({len(data)} bytes, no end mark)')
    # an eighth of the size is enough to see whether all of it decodes, and faster
    if cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is None:
        return found('image-damaged', f'cannot be decoded ({len(data)} bytes)')
    return [], size


def check_lidar(path: Path) -> list[Finding]:
    """Findings about a LiDAR file; it may be missing, camera models read none."""
    if path.is_file() and (path.stat().st_size == 0 or path.stat().st_size % _POINT_BYTES):
        size = path.stat().st_size
        message = f'has {size} bytes; expected {_POINT_BYTES} per point (five float32), so it is empty or cut short'
        return [Finding('lidar-damaged', str(path), message)]
    return []


def load_arrays(path: Path, hint: str, what: str = 'label') -> tuple[list[Finding], dict[str, np.ndarray]]:
    """Arrays of an ``.npz`` or ``.npy`` file (the latter under the key ``''``), or findings why there are none.

    Args:
        path: The file.
        hint: What to do if it is missing or damaged.
        what: ``'label'`` or ``'depth'``, which the kinds of the findings begin with.
    """
    if not path.is_file():
        return [Finding(f'{what}-missing', str(path), f'does not exist; {hint}')], {}
    try:
        loaded = np.load(path, allow_pickle=False)
        return [], {key: loaded[key] for key in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {'': loaded}
    except Exception as error:  # a damaged archive can raise nearly anything: zip, zlib, header and value errors
        size = path.stat().st_size
        return [Finding(f'{what}-damaged', str(path), f'cannot be read ({size} bytes): {error}; {hint}')], {}


def check_occ3d_label(path: Path, grid: VoxelGrid) -> tuple[list[Finding], np.ndarray]:
    """Findings about ``labels.npz``, and how often each label value occurs, (256,) int64."""
    counts = np.zeros(256, dtype=np.int64)
    findings, arrays = load_arrays(path, 'unpack the labels again')
    if findings:
        return findings, counts

    def found(kind: str, message: str) -> None:
        findings.append(Finding(kind, str(path), message))

    semantics = arrays.get('semantics')
    if semantics is None:
        found('label-array', f"has no array 'semantics', only {sorted(arrays)}")
    elif semantics.shape != grid.shape:
        found('label-shape', f'semantics has the shape {semantics.shape}, the grid {grid.shape}')
    elif semantics.dtype.kind not in 'iu':
        found('label-type', f'semantics is {semantics.dtype}; expected integers (uint8 in the release)')
    elif semantics.min() < 0 or semantics.max() >= grid.num_classes:
        found('label-class', f'class ids {semantics.min()}..{semantics.max()}; expected 0..{grid.num_classes - 1}')
    else:
        counts = np.bincount(semantics.reshape(-1), minlength=256)
        if counts[grid.free_index] == semantics.size:
            found('label-empty', 'every voxel is free')
    for name in ('mask_lidar', 'mask_camera'):
        mask = arrays.get(name)
        if mask is None:
            found('label-array', f"has no array '{name}', only {sorted(arrays)}")
        elif mask.shape != grid.shape:
            found('mask-shape', f'{name} has the shape {mask.shape}, the grid {grid.shape}')
        elif not np.isin(mask, (0, 1)).all():
            found('mask-values', f'{name} holds other values than 0 and 1')
        elif not mask.any():
            found('mask-empty', f'{name} is 0 everywhere, so no voxel would be evaluated')
    return findings, counts


def check_surroundocc_label(path: Path, grid: VoxelGrid) -> tuple[list[Finding], np.ndarray]:
    """Findings about ``<LiDAR file>.npy``, and how often each label value occurs in memory, (256,) int64."""
    counts = np.zeros(256, dtype=np.int64)
    findings, arrays = load_arrays(path, 'unpack the labels again')
    if findings:
        return findings, counts

    def found(kind: str, message: str) -> None:
        findings.append(Finding(kind, str(path), message))

    rows = arrays.get('', np.zeros(0))
    if rows.ndim != 2 or rows.shape[1] != 4:
        found('label-shape', f'has the shape {rows.shape}; expected (K, 4): ix, iy, iz, class')
    elif rows.dtype.kind not in 'iu':
        found('label-type', f'holds {rows.dtype}; expected integers')
    elif len(rows) == 0:
        found('label-empty', 'no voxel is occupied')
    elif (rows[:, :3] < 0).any() or (rows[:, :3] >= np.array(grid.shape)).any():
        found(
            'label-shape', f'voxel indices up to {rows[:, :3].max(0).tolist()} (least {rows[:, :3].min()}), grid {grid.shape}'
        )
    elif rows[:, 3].min() < 0 or rows[:, 3].max() >= grid.num_classes:
        found('label-class', f'class ids {rows[:, 3].min()}..{rows[:, 3].max()}; expected 0..{grid.num_classes - 1}')
    else:
        counts = np.bincount(np.where(rows[:, 3] == 0, grid.ignore_index, rows[:, 3]), minlength=256)
        if len(np.unique(rows[:, :3], axis=0)) < len(rows):
            found('label-class', 'lists a voxel more than once')
    return findings, counts


def check_depth(path: Path, image_wh: tuple[int, int]) -> list[Finding]:
    """Findings about a depth map, a ``.npy`` of (H, W) floats in metres; see :class:`LoadDepthMaps`."""
    findings, arrays = load_arrays(path, 'make it again from the stereo images', 'depth')
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
