"""Mirroring of a whole scene."""

import random

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .measured import move_measurements


@TRANSFORMS.register_module()
class RandomFlipScene(BaseTransform):
    """Mirrors images, depth maps, labels and masks left-right.

    For grids that reach as far to the left as to the right; ``grid.ahead`` says which axis that is (y for KITTI and ego
    frames, x for LIDAR_TOP of nuScenes). Comes after :class:`LoadVoxelProjections`, if that is used.

    With ``flip_cameras`` the cameras are mirrored too: their principal points move to the other side of the image, their poses
    are conjugated, and the projections of the voxels follow, so that every mirrored voxel lies on its mirrored pixel. Without,
    the matrices and projections stay as they are, as in Symphonies: image and label then disagree by twice the distance of the
    principal point from the middle of the image (43 pixels for KITTI-360) and by the camera's place beside the middle of the
    grid (0.6 m). Published weights were trained like that.

    Changes ``img``, ``gt_occ``, ``mask_camera``, ``mask_lidar``, ``depth`` and ``rays``, as far as they are there; with
    ``flip_cameras`` also ``ref2cam``, ``cam2img``, ``ref2img``, ``warp`` (from and to mirrored pixels), ``originals``,
    ``lidar2ego``, ``ego2global`` (whose global frame is mirrored as well), ``lidar_frames`` (whose ``lidar2ref`` mirrors the
    points of the files), ``voxel_pixels``, ``voxel_visible`` and ``frustum_index``.

    Args:
        prob: Probability of flipping.
        flip_cameras: Whether the cameras are mirrored as well.
    """

    def __init__(self, prob: float = 0.5, flip_cameras: bool = True) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'RandomFlipScene.prob must lie in [0, 1], got {prob}')
        self.prob = prob
        self.flip_cameras = flip_cameras

    def transform(self, results: dict) -> dict:
        """Flips with the given probability.

        Raises:
            ValueError: If the grid is not symmetric, or the cameras of a frame with several of them are to stay.
        """
        grid = results['grid']
        side = 1 - grid.ahead_axis
        if abs(grid.lower[side] + grid.upper[side]) > 1e-6:
            raise ValueError(
                f'RandomFlipScene mirrors {"xy"[side]} where grid.ahead={grid.ahead!r}, so the grid must reach as far to the '
                f'left as to the right, got {"xy"[side]} from {grid.lower[side]} to {grid.upper[side]} m'
            )
        if not self.flip_cameras and len(set(results['cam_names'])) > 1:
            raise ValueError(
                'RandomFlipScene(flip_cameras=False) is for data sets with one camera, which looks ahead; got '
                f'{len(set(results["cam_names"]))} cameras, so set flip_cameras=True'
            )
        if random.random() >= self.prob:
            return results
        for key in ('img', 'depth'):
            if key in results:
                results[key] = [mmcv.imflip(image) for image in results[key]]
        for key in ('gt_occ', 'mask_camera', 'mask_lidar'):
            if key in results:
                results[key] = np.flip(results[key], side)
        self._flip_measurements(results)
        if self.flip_cameras:
            self._flip_cameras(results)
        return results

    def _flip_measurements(self, results: dict) -> None:
        mirror = np.eye(4)
        mirror[1 - results['grid'].ahead_axis, 1 - results['grid'].ahead_axis] = -1
        move_measurements(results, mirror, files=self.flip_cameras)
        results['images_mirrored'] = True
        if 'rays' in results:
            rays = results['rays']
            uv = rays['uv'].copy()
            uv[:, 0] = np.asarray(results['ori_img_wh'], dtype=np.float32)[rays['camera'], 0] - uv[:, 0]
            results['rays'] = dict(rays, uv=uv)

    def _flip_cameras(self, results: dict) -> None:
        mirror_y, mirror_x = np.diag([1.0, -1.0, 1.0, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0])
        # of the reference frame; cameras have x, the ego frame has y from side to side
        mirror = mirror_y if results['grid'].ahead == 'x' else mirror_x
        results['ref2cam'] = mirror_x @ np.asarray(results['ref2cam']) @ mirror
        for key, widths, right in (
            ('cam2img', results['ori_img_wh'][:, 0], mirror_x[:3, :3]),
            ('ref2img', results['img_wh'][:, 0], mirror),
        ):
            matrices = np.array(results[key], dtype=np.float64)
            # u becomes width - u
            matrices[:, 0] = np.asarray(widths)[:, None] * matrices[:, 2] - matrices[:, 0]
            results[key] = matrices @ right
        if 'originals' in results:
            results['originals'] = [mmcv.imflip(image) for image in results['originals']]
        if 'warp' in results:
            widths = (results['img_wh'][:, 0], results['ori_img_wh'][:, 0])
            new, old = ([np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) for width in both] for both in widths)
            results['warp'] = np.array(new) @ results['warp'] @ np.array(old)
        for key, right in (('lidar2ego', mirror), ('ego2global', mirror_y)):
            if key in results:
                results[key] = mirror_y @ results[key] @ right
        if 'voxel_pixels' in results:
            self._flip_projections(results)

    def _flip_projections(self, results: dict) -> None:
        shape, side = results['grid'].shape, 1 - results['grid'].ahead_axis
        views, voxels = results['voxel_visible'].shape
        scale = round((np.prod(shape) / voxels) ** (1 / 3))
        coarse = tuple(n // scale for n in shape)
        pixels = np.flip(results['voxel_pixels'].reshape(views, *coarse, 2), 1 + side).copy()
        widths = np.asarray(results['img_wh'])[:, 0].astype(np.int64)
        pixels[..., 0] = widths[:, None, None, None] - 1 - pixels[..., 0]
        results['voxel_pixels'] = pixels.reshape(views, voxels, 2)
        visible = np.flip(results['voxel_visible'].reshape(views, *coarse), 1 + side)
        results['voxel_visible'] = visible.reshape(views, voxels)
        if 'frustum_index' in results:
            index = np.flip(results['frustum_index'], side)
            count = results['frustums']
            row, column = index // count, index % count
            results['frustum_index'] = np.where(index < 0, index, row * count + count - 1 - column).astype(np.int16)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob}, flip_cameras={self.flip_cameras})'
