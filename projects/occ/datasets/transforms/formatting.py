"""From a pipeline's dict to what a model takes."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.structures import OccDataSample

_ARRAY_META = ('ref2img', 'img_wh', 'ref2cam', 'cam2img', 'ori_img_wh')
_FLOAT64_META = ('lidar2ego', 'ego2global')
_PLAIN_META = ('cam_names', 'img_paths', 'token', 'scene_name', 'frame_idx', 'lidar_path')


@TRANSFORMS.register_module()
class PackOccInputs(BaseTransform):
    """Packs images, labels and cameras.

    The result is ``dict(inputs=dict(img=(N, 3, H, W) uint8 or float32 BGR), data_samples=OccDataSample)`` with the fields and
    the meta information that :class:`OccDataSample` lists; labels and voxel projections only if they were loaded. Depth maps,
    if loaded, are ``inputs['depth']``, (N, H, W) float32, metres, 0 = none.

    Args:
        extra_meta_keys: Further keys of the pipeline's dict to keep as meta information.
    """

    def __init__(self, extra_meta_keys: tuple[str, ...] = ()) -> None:
        self.extra_meta_keys = tuple(extra_meta_keys)

    def transform(self, results: dict) -> dict:
        """Packs one item.

        Raises:
            ValueError: If the images have different sizes, or a depth map has another size than its image.
        """
        images = results['img']
        sizes = {image.shape[:2] for image in images}
        if len(sizes) > 1:
            listed = {name: image.shape[1::-1] for name, image in zip(results['cam_names'], images)}
            raise ValueError(
                f'frame {results["token"]}: images of one frame must have one size to be stacked, got (width, height) '
                f'{listed}; put ResizeCropFlipImages into the pipeline'
            )
        stacked = np.stack([image.transpose(2, 0, 1) for image in images])
        sample = OccDataSample()
        if 'gt_occ' in results:
            sample.gt_occ = torch.from_numpy(np.ascontiguousarray(results['gt_occ'], dtype=np.uint8))
        for key in ('mask_camera', 'mask_lidar'):
            if key in results:
                setattr(sample, key, torch.from_numpy(np.ascontiguousarray(results[key], dtype=bool)))
        if 'voxel_pixels' in results:
            sample.voxel_pixels = torch.from_numpy(np.ascontiguousarray(results['voxel_pixels'], dtype=np.int64))
            sample.voxel_visible = torch.from_numpy(np.ascontiguousarray(results['voxel_visible'], dtype=bool))
        if 'frustum_index' in results:
            sample.frustum_index = torch.from_numpy(np.ascontiguousarray(results['frustum_index'], dtype=np.int16))
        meta = {key: np.asarray(results[key], dtype=np.float32) for key in _ARRAY_META}
        meta.update({key: np.asarray(results[key], dtype=np.float64) for key in _FLOAT64_META if key in results})
        meta.update({key: results[key] for key in _PLAIN_META if key in results})
        meta.update({key: results[key] for key in self.extra_meta_keys})
        sample.set_metainfo(meta)
        inputs = dict(img=torch.from_numpy(np.ascontiguousarray(stacked)))
        if 'depth' in results:
            inputs['depth'] = self._depth(results)
        return dict(inputs=inputs, data_samples=sample)

    @staticmethod
    def _depth(results: dict) -> torch.Tensor:
        for name, image, depth in zip(results['cam_names'], results['img'], results['depth']):
            if depth.shape != image.shape[:2]:
                raise ValueError(
                    f'frame {results["token"]}: the depth map of {name} has the shape {depth.shape}, its image '
                    f'{image.shape[:2]}; load depth before the images are resized, by transforms that know of depth '
                    '(ResizeCropFlipImages does)'
                )
        return torch.from_numpy(np.stack(results['depth']).astype(np.float32))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(extra_meta_keys={self.extra_meta_keys})'
