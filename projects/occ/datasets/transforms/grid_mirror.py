"""Mirroring of the reference frame under images that stay."""

import random

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .measured import move_measurements

_LABELS = ('gt_occ', 'mask_camera', 'mask_lidar', 'frustum_index')


@TRANSFORMS.register_module()
class RandomMirrorGrid(BaseTransform):
    """Mirrors the reference frame along x and along y, each with a probability of its own; images stay as they are.

    The augmentation of bird's-eye-view networks (BEVDet), which lift features into a mirrored grid. Labels, masks and the poses
    of cameras, LiDAR and vehicle go along, so that every voxel keeps its pixels: what is rendered from the mirrored grid with
    the moved cameras is the picture from before. Poses contain a reflection afterwards. :class:`RandomFlipScene` mirrors the
    images too. Comes after labels, voxel projections and depth maps are loaded.

    Changes ``gt_occ``, ``mask_camera``, ``mask_lidar``, ``frustum_index``, ``voxel_pixels``, ``voxel_visible``, ``ref2cam``,
    ``ref2img``, ``lidar2ego``, ``ego2global``, ``lidar_frames`` and ``rays``, as far as they are there, and adds ``scene``
    (3, 3), recorded reference frame -> mirrored one.

    Args:
        prob_x: Probability of mirroring x.
        prob_y: Probability of mirroring y.

    Raises:
        ValueError: If a probability is none.
    """

    def __init__(self, prob_x: float = 0.5, prob_y: float = 0.5) -> None:
        for name, prob in (('prob_x', prob_x), ('prob_y', prob_y)):
            if not 0 <= prob <= 1:
                raise ValueError(f'RandomMirrorGrid.{name} must lie in [0, 1], got {prob}')
        self.probs = (prob_x, prob_y)

    def transform(self, results: dict) -> dict:
        """Mirrors with the given probabilities.

        Raises:
            ValueError: If the grid is not symmetric along an axis that may be mirrored.
        """
        grid = results['grid']
        for axis, prob in enumerate(self.probs):
            if prob > 0 and abs(grid.lower[axis] + grid.upper[axis]) > 1e-6:
                raise ValueError(
                    f'RandomMirrorGrid mirrors {"xy"[axis]}, so the grid must reach as far to both sides of 0, got '
                    f'{"xy"[axis]} from {grid.lower[axis]} to {grid.upper[axis]} m; set prob_{"xy"[axis]}=0'
                )
        axes = [axis for axis, prob in enumerate(self.probs) if random.random() < prob]
        mirror = np.eye(4)
        mirror[axes, axes] = -1
        results['scene'] = mirror[:3, :3] @ results.get('scene', np.eye(3))
        if axes:
            self._mirror(results, axes, mirror)
        return results

    @staticmethod
    def _mirror(results: dict, axes: list[int], mirror: np.ndarray) -> None:
        for key in _LABELS:
            if key in results:
                results[key] = np.flip(results[key], axes)
        for key in ('ref2cam', 'ref2img'):
            results[key] = np.asarray(results[key], dtype=np.float64) @ mirror
        if results['grid'].frame == 'ego':
            if 'lidar2ego' in results:
                results['lidar2ego'] = mirror @ results['lidar2ego']
            if 'ego2global' in results:
                results['ego2global'] = results['ego2global'] @ mirror
        elif 'lidar2ego' in results:
            results['lidar2ego'] = results['lidar2ego'] @ mirror
        move_measurements(results, mirror)
        for key in ('voxel_pixels', 'voxel_visible'):
            if key in results:
                results[key] = _flip_voxels(results[key], results['grid'].shape, axes)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob_x={self.probs[0]}, prob_y={self.probs[1]})'


def _flip_voxels(table: np.ndarray, shape: tuple[int, int, int], axes: list[int]) -> np.ndarray:
    """Mirrors a table (V, P, ...) of voxels at a whole-number scale of ``shape``, flattened with z fastest."""
    views, voxels = table.shape[:2]
    scale = round((np.prod(shape) / voxels) ** (1 / 3))
    volume = table.reshape(views, *(n // scale for n in shape), *table.shape[2:])
    return np.flip(volume, [axis + 1 for axis in axes]).reshape(table.shape)
