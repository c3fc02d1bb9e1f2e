"""Measured depths at the pixels that LiDAR points fall on, for evaluation and for supervision by depth."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points

ROUNDINGS = ('truncate', 'nearest')


def project_to_pixels(
    points: np.ndarray, ref2cam: np.ndarray, cam2img: np.ndarray, image_wh: Sequence[int], rounding: str = 'truncate'
) -> np.ndarray:
    """Points in front of a camera that fall into its image, one row per pixel.

    Args:
        points: (P, 3), metres, reference frame.
        ref2cam: (4, 4), reference frame -> camera (z forward).
        cam2img: (3, 3), pixels.
        image_wh: Width and height, pixels.
        rounding: ``'truncate'`` towards zero, as DGP does (DDAD): coordinates between -1 and 0 become 0; ``'nearest'``, as the
            depth maps of nuScenes in GaussianOcc.

    Returns:
        (M, 3) float64: column, row, depth along the optical axis in metres. Where several points fall on one pixel, the last
        one of the file counts, as in the originals.
    """
    width, height = image_wh
    camera = points @ ref2cam[:3, :3].T + ref2cam[:3, 3]
    camera = camera[camera[:, 2] > 0]
    projected = camera @ np.asarray(cam2img, dtype=np.float64).T
    pixels = projected[:, :2] / projected[:, 2:]
    if rounding == 'truncate':
        inside = ((pixels > -1) & (pixels < (width, height))).all(1)
        pixels = np.trunc(pixels)
    else:
        pixels = np.round(pixels)
        inside = ((pixels >= 0) & (pixels <= (width - 1, height - 1))).all(1)
    pixels, depth = pixels[inside].astype(np.int64), camera[inside, 2]
    # unique keeps the first one
    _, last = np.unique((pixels @ np.array([1, width]))[::-1], return_index=True)
    rows = np.sort(len(depth) - 1 - last)
    return np.c_[pixels[rows], depth[rows]]


def finite_points(points: np.ndarray) -> np.ndarray:
    """(P, 3) float64, the coordinates of rows (P, D) that are finite."""
    points = points[:, :3].astype(np.float64)
    return points[np.isfinite(points).all(1)]


@TRANSFORMS.register_module()
class LoadDepthPixels(BaseTransform):
    """Projects the LiDAR sweep of the key frame into its images, with the motion of the vehicle since the sweep.

    Needs ``lidar_path``, ``ref2cam``, ``cam2img``, ``lidar2ego``, ``ori_img_wh`` and ``grid``; adds ``depth_pixels``, a list of
    (M, 3) float32 arrays: column, row and depth in metres, in the *original* image. Nothing is interpolated. Behind
    ``LoadSelfOcclusionMasks`` (``image_masks``), pixels on the own car are left out: the LiDAR sees the road that it hides.

    Args:
        point_dims: Numbers per point in files of float32 rows: 5 in nuScenes, 4 in KITTI. Archives (DDAD) know theirs.
        rounding: ``'truncate'`` or ``'nearest'``, see :func:`project_to_pixels`.
        backend_args: Arguments of mmengine's file backend.
    """

    def __init__(
        self, point_dims: int = NUSCENES_POINT_DIMS, rounding: str = 'truncate', backend_args: dict | None = None
    ) -> None:
        if point_dims < 3 or rounding not in ROUNDINGS:
            raise ValueError(
                f'LoadDepthPixels: point_dims must be at least 3 and rounding one of {ROUNDINGS}, got {point_dims} and '
                f'{rounding!r}'
            )
        self.point_dims = point_dims
        self.rounding = rounding
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Projects the points.

        Raises:
            FileNotFoundError: If the sweep is missing.
            ValueError: If its file is damaged.
        """
        what = f'LiDAR sweep of frame {results["token"]}'
        remedy = "check dataset.data_root, dataset.data_prefix['pts'] and LoadDepthPixels.point_dims"
        points = finite_points(read_points(results.get('lidar_path', ''), self.point_dims, what, remedy, self.backend_args))
        if results['grid'].frame == 'ego':
            points = points @ results['lidar2ego'][:3, :3].T + results['lidar2ego'][:3, 3]
        frame = results.get('frame', np.zeros(len(results['cam2img']), dtype=np.int64))
        pixels = [
            project_to_pixels(
                points,
                results['ref2cam'][view],
                results['cam2img'][view],
                results['ori_img_wh'][view].astype(int),
                self.rounding,
            ).astype(np.float32)
            for view in np.flatnonzero(np.asarray(frame) == 0)
        ]
        if 'image_masks' in results:
            masks = results['image_masks']
            pixels = [rows[mask[tuple(rows[:, 1::-1].astype(int).T)]] for rows, mask in zip(pixels, masks, strict=True)]
        results['depth_pixels'] = pixels
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(point_dims={self.point_dims}, rounding={self.rounding!r})'
