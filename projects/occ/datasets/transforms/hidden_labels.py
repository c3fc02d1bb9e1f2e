"""Samples whose labels training must not see."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.structures import VoxelGrid


@TRANSFORMS.register_module()
class HideLabels(BaseTransform):
    """Makes a sample unlabelled, for training by a teacher (``TeacherStudentHook``).

    Every voxel of ``gt_occ`` becomes ignored, and ``unlabelled`` is set. Frames without a label file need no
    ``LoadOccLabels`` before; their ``mask_camera`` then holds the voxels whose centre falls into an image of the key frame,
    those behind walls included. Masks that are there stay. Comes behind ``LoadMultiViewImages``, before anything that mirrors.

    Args:
        masks: Masks that samples with labels have, so that those of a batch can be stacked: ``('camera', 'lidar')`` for
            Occ3D, none for the other benchmarks. A ``mask_lidar`` that is not there is empty.
        keep_rays: Whether LiDAR rays, which are labels too, stay.
    """

    def __init__(self, masks: tuple[str, ...] = (), keep_rays: bool = False) -> None:
        if not set(masks) <= {'camera', 'lidar'}:
            raise ValueError(f"HideLabels.masks must be of 'camera' and 'lidar', got {tuple(masks)}")
        self.masks = tuple(masks)
        self.keep_rays = keep_rays

    def transform(self, results: dict) -> dict:
        """Hides the labels."""
        grid = results['grid']
        results['gt_occ'] = np.full(grid.shape, grid.ignore_index, dtype=np.uint8)
        results['unlabelled'] = True
        if 'camera' in self.masks and 'mask_camera' not in results:
            results['mask_camera'] = voxels_in_images(grid, results)
        if 'lidar' in self.masks and 'mask_lidar' not in results:
            results['mask_lidar'] = np.zeros(grid.shape, dtype=bool)
        if 'rays' in results and not self.keep_rays:
            results['rays'] = {key: values[:0] for key, values in results['rays'].items()}
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(masks={self.masks}, keep_rays={self.keep_rays})'


def voxels_in_images(grid: VoxelGrid, results: dict) -> np.ndarray:
    """(X, Y, Z) bool, the centre of the voxel falls into an original image of the key frame."""
    axes = [grid.lower[i] + (np.arange(grid.shape[i]) + 0.5) * grid.voxel_size[i] for i in range(3)]
    seen = np.zeros(grid.shape, dtype=bool)
    for view in np.flatnonzero(np.asarray(results['frame']) == 0):
        projection = results['cam2img'][view] @ np.asarray(results['ref2cam'])[view][:3]
        # sums of three axes instead of a product with every centre
        u, v, depth = (
            row[0] * axes[0][:, None, None] + row[1] * axes[1][:, None] + row[2] * axes[2] + row[3] for row in projection
        )
        width, height = results['ori_img_wh'][view]
        seen |= (depth > 0) & (u >= 0) & (u < width * depth) & (v >= 0) & (v < height * depth)
    return seen
