"""LiDAR points as rays of camera pixels: projection, the files of RenderOcc, and which rays are drawn.

RenderOcc keeps what a LiDAR sweep says about an image in two files of float32 rows, named after the image with ``.bin``: its
depths (u, v, depth) in ``depth_gt`` and its classes (u, v, class) in ``seg_gt_lidarseg``, row by row of the same point. Pixels
are those of the original image with their fractions, depth is along the optical axis in metres, classes are 0 (noise) to 16.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.file_arrays import read_bytes
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import DYNAMIC_CLASSES, NUSCENES_CLASSES, NUSCENES_POINT_COUNTS
from projects.occ.structures.voxel_grid import plain_class_name

# of the border of an image, pixels: points closer to it are left out, as in RenderOcc
MARGIN = 1.0


@dataclass(frozen=True)
class PixelPoints:
    """M measurements at pixels of N cameras.

    Attributes:
        camera: (M,) int64, which of the cameras.
        uv: (M, 2) float64, pixel of the original image, x before y, with its fraction.
        depth: (M,) float64, along the optical axis, metres.
        point: (M,) int64, row of the LiDAR point or of the file.
    """

    camera: np.ndarray
    uv: np.ndarray
    depth: np.ndarray
    point: np.ndarray


def project_points(
    points: np.ndarray, lidar2cam: np.ndarray, cam2img: np.ndarray, sizes: np.ndarray, min_depth: float = 0.0
) -> PixelPoints:
    """All points in front of cameras and inside their images; nothing is hidden by anything.

    Args:
        points: (P, 3), metres.
        lidar2cam: (N, 4, 4) float64, points -> camera (z forward).
        cam2img: (N, 3, 3), pixels.
        sizes: (N, 2), width and height of the images, pixels.
        min_depth: Least depth, metres; what lies nearer belongs to the vehicle itself. The depth is always above 0.

    Returns:
        Camera by camera, in the order of the points.
    """
    rows = np.ascontiguousarray(points[:, :3].T, dtype=np.float64)
    found = []
    for view, (pose, intrinsics, size) in enumerate(zip(lidar2cam, cam2img, sizes, strict=True)):
        projection = np.asarray(intrinsics, dtype=np.float64) @ pose[:3]
        z = pose[2, :3] @ rows + pose[2, 3]
        front = np.flatnonzero((z > 0) & (z >= min_depth))
        near = rows[:, front]
        scale = projection[2, :3] @ near + projection[2, 3]
        u = (projection[0, :3] @ near + projection[0, 3]) / scale
        v = (projection[1, :3] @ near + projection[1, 3]) / scale
        inside = np.flatnonzero((u > MARGIN) & (u < size[0] - MARGIN) & (v > MARGIN) & (v < size[1] - MARGIN))
        kept = front[inside]
        found.append((np.full(len(kept), view), np.stack([u[inside], v[inside]], axis=1), z[kept], kept))
    return PixelPoints(*(np.concatenate(parts) for parts in zip(*found)))


def pixel_rays(
    uv: np.ndarray, camera: np.ndarray, cam2img: np.ndarray, cam2ref: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays through pixels.

    Args:
        uv: (M, 2), pixels.
        camera: (M,) int, which of N cameras.
        cam2img: (N, 3, 3), pixels.
        cam2ref: (N, 4, 4), camera -> reference frame; may mirror.

    Returns:
        Origins (M, 3), metres; unit directions (M, 3); depth per metre of the ray (M,); float64.
    """
    img2cam = np.linalg.inv(cam2img)
    pixels = np.concatenate([uv, np.ones((len(uv), 1))], axis=1)
    in_camera = np.einsum('mij,mj->mi', img2cam[camera], pixels)
    length = np.linalg.norm(in_camera, axis=-1)
    directions = np.einsum('mij,mj->mi', cam2ref[camera, :3, :3], in_camera / length[:, None])
    return cam2ref[camera, :3, 3], directions, 1 / length


def last_label_of_pixel(uv: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels (M,) of points of one image after the last point in the order of the rows has given its own to its pixel."""
    pixels = np.trunc(uv).astype(np.int64) @ np.array([1 << 20, 1])
    _, first, inverse = np.unique(pixels[::-1], return_index=True, return_inverse=True)
    return labels[::-1][first][inverse.reshape(-1)][::-1]


def ray_file(folder: str, img_path: str) -> str:
    """Path of an image's file in a folder of RenderOcc's."""
    return os.path.join(folder, f'{PurePosixPath(img_path).name}.bin')


def read_ray_rows(path: str, what: str, backend_args: dict | None = None) -> np.ndarray:
    """(M, 3) float32 rows of one file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut short, or holds numbers that are not finite.
    """
    data = read_bytes(path, what, 'write it with tools/create_data.py lidar-rays', backend_args)
    if len(data) % 12:
        raise ValueError(f"{what}: '{path}' has {len(data)} bytes; expected 12 per row (3 float32), so it is cut short")
    rows = np.frombuffer(data, dtype='<f4').reshape(-1, 3)
    if not np.isfinite(rows).all():
        raise ValueError(f"{what}: '{path}' holds numbers that are not finite; write it again")
    return rows


def read_ray_files(
    depth_path: str, class_path: str | None, what: str, backend_args: dict | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What RenderOcc's files say about one image.

    Args:
        depth_path: File of the depths.
        class_path: File of the classes, or None.
        what: The image, named in errors.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        Pixels (M, 2) and depths (M,), float64, and classes (M,) uint8, or None.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged, or their rows belong to different points.
    """
    rows = read_ray_rows(depth_path, f'ray depths of {what}', backend_args)
    uv, depth = rows[:, :2].astype(np.float64), rows[:, 2].astype(np.float64)
    if class_path is None:
        return uv, depth, None
    classes = read_ray_rows(class_path, f'ray classes of {what}', backend_args)
    if len(classes) != len(rows) or not np.array_equal(classes[:, :2], rows[:, :2]):
        raise ValueError(
            f"{what}: '{class_path}' ({len(classes)} rows) and '{depth_path}' ({len(rows)} rows) hold different points; write "
            'both again with tools/create_data.py lidar-rays'
        )
    ids = classes[:, 2]
    if ids.size and (ids.min() < 0 or ids.max() > len(NUSCENES_CLASSES) or (ids != np.trunc(ids)).any()):
        raise ValueError(f"{what}: '{class_path}' holds the class {ids.max()}; expected whole numbers 0..16")
    return uv, depth, ids.astype(np.uint8)


def write_ray_rows(path: str | os.PathLike, uv: np.ndarray, values: np.ndarray) -> None:
    """Writes pixels (M, 2) and depths or classes (M,) as one file of RenderOcc's, atomically."""
    rows = np.column_stack([uv, values]).astype('<f4')
    write_atomically(path, lambda file: file.write(rows.tobytes()))


def dynamic_ids(grid: VoxelGrid) -> tuple[int, ...]:
    """Ids of the classes of a grid that can move by themselves."""
    moving = {plain_class_name(name) for name in DYNAMIC_CLASSES}
    return tuple(index for index in grid.semantic_classes if plain_class_name(grid.class_names[index]) in moving)


def published_counts(grid: VoxelGrid) -> np.ndarray:
    """(classes,) LiDAR points of each class in nuScenes, as RenderOcc counted them; 0 for the free class.

    Raises:
        ValueError: If the grid has other classes.
    """
    known = {plain_class_name(name): count for name, count in NUSCENES_POINT_COUNTS.items()}
    names = [plain_class_name(name) for name in grid.class_names]
    unknown = [grid.class_names[index] for index in grid.semantic_classes if names[index] not in known]
    if unknown:
        raise ValueError(
            f'no number of LiDAR points is published for the class {unknown[0]!r}; set LoadLidarRays.class_counts, or balance '
            "'sample' or 'none'"
        )
    return np.array([0 if index == grid.free_index else known[name] for index, name in enumerate(names)], dtype=np.float64)


def log_class_balance(counts: np.ndarray, smoothing: float = 0.005) -> np.ndarray:
    """Logarithms (C,) of the weights that rare classes get, ``smoothing * (max(counts) / counts - 1)``; 0 where none is.

    Source: RenderOcc, equation 10.
    """
    counts = np.asarray(counts, dtype=np.float64)
    return np.where(counts > 0, smoothing * (counts.max(initial=0) / np.where(counts > 0, counts, 1) - 1), 0)


def log_ray_weights(
    labels: np.ndarray,
    neighbour: np.ndarray,
    balance: np.ndarray,
    dynamic: Sequence[int],
    neighbour_weight: float = 0.3,
    dynamic_weight: float = 0.0,
) -> np.ndarray:
    """Logarithms of the weights that rays are drawn with: that of the class times that of the frame.

    Args:
        labels: (M,) class ids; those outside ``balance`` are unknown and count like the most frequent class.
        neighbour: (M,) bool, the ray was measured in another frame than the key frame.
        balance: (C,), see :func:`log_class_balance`.
        dynamic: Ids of classes that move.
        neighbour_weight: Of rays of other frames.
        dynamic_weight: Of those among them whose class moves.

    Returns:
        (M,) float64, -inf for rays that are never drawn.
    """
    known = labels < len(balance)
    weights = np.where(known, balance[np.where(known, labels, 0)], 0.0)
    with np.errstate(divide='ignore'):
        other, moving = np.log(neighbour_weight), np.log(dynamic_weight)
    is_dynamic = np.zeros(256, dtype=bool)
    is_dynamic[list(dynamic)] = True
    return weights + np.where(neighbour, np.where(is_dynamic[labels], moving, other), 0.0)


def draw_rays(log_weights: np.ndarray, count: int) -> np.ndarray:
    """Draws without replacement, each ray with a probability proportional to its weight among those that are left.

    The ``count`` largest of logarithm plus Gumbel noise are such a draw (exponential races), in one pass and without overflow.
    Draws from numpy's global generator, as all transforms do.

    Args:
        log_weights: (M,), -inf for those never to be drawn.
        count: How many to draw; fewer, where fewer can be drawn.

    Returns:
        Their positions in ascending order.
    """
    possible = np.flatnonzero(log_weights > -np.inf)
    if len(possible) <= count:
        return possible
    keys = log_weights[possible] + np.random.gumbel(size=len(possible))  # noqa: NPY002 - seeded by RandomStateHook
    return np.sort(possible[np.argpartition(-keys, count)[:count]])
