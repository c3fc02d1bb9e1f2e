"""From a pipeline's dict to what a model takes."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.structures import Cameras, ImageList, OccDataSample, Rays

# What pictures and metrics look through; matrices of the key frame.
_CAMERA_META = ('ref2img', 'img_wh', 'ref2cam', 'cam2img', 'ori_img_wh')
_FLOAT64_META = ('lidar2ego', 'ego2global')
_VIEW_META = ('cam_names', 'img_paths')
_PLAIN_META = ('token', 'scene_name', 'frame_idx', 'lidar_path', 'unlabelled')
# For the network alone, see LoadVoxelProjections and RandomMirrorGrid.
_TABLES = dict(voxel_pixels=np.int64, voxel_visible=bool, frustum_index=np.int16, scene=np.float32)
# Maps of the key frame's images, each as large as its original image.
_IMAGE_MAPS = dict(image_masks=bool, pseudo_labels=np.int16)


@TRANSFORMS.register_module()
class PackOccInputs(BaseTransform):
    """Packs what is there: images, cameras, labels, depth maps and tables.

    The result is ``dict(inputs=..., data_samples=OccDataSample)``. ``inputs`` holds what a network or a supervision may see,
    and becomes an ``OccBatch`` in the data preprocessor: ``img`` (V, 3, H, W) uint8 or float32 BGR; ``cameras``, a
    :class:`Cameras` of one sample, float64; ``img_wh`` (V, 2) float32; and as far as they are there ``depth`` (V, H, W)
    float32, metres, 0 = none, ``voxel_pixels``, ``voxel_visible``, ``frustum_index``, ``frustums``, ``view_missing``
    (V,) bool, ``scene`` (3, 3) float32, and an :class:`ImageList` each of ``originals`` (3, h, w) uint8 RGB,
    ``image_masks`` (h, w) bool, ``pseudo_labels`` (h, w) int16; and ``rays``, :class:`Rays` of one sample, with the name of
    their reference frame in ``rays_frame``. The data sample holds labels, masks, names and the cameras of
    the key frame, for metrics and pictures; see :class:`OccDataSample`.

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
        inputs = dict(
            img=torch.from_numpy(np.ascontiguousarray(stacked)),
            cameras=self._cameras(results),
            img_wh=torch.from_numpy(np.asarray(results['img_wh'], dtype=np.float32)),
        )
        if 'depth' in results:
            inputs['depth'] = self._depth(results)
        if 'originals' in results:
            # RGB, as targets compare colours
            inputs['originals'] = ImageList(
                tuple(
                    torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
                    for image in results['originals']
                )
            )
        if 'view_missing' in results:
            inputs['view_missing'] = torch.from_numpy(np.asarray(results['view_missing'], dtype=bool))
        for key, dtype in _TABLES.items():
            if key in results:
                inputs[key] = torch.from_numpy(np.ascontiguousarray(results[key], dtype=dtype))
        for key, dtype in _IMAGE_MAPS.items():
            if key in results:
                maps = (torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)) for values in results[key])
                inputs[key] = ImageList(tuple(maps))
        if 'rays' in results:
            inputs['rays'] = self._rays(results)
            inputs['rays_frame'] = results['grid'].frame
        if 'frustums' in results:
            inputs['frustums'] = int(results['frustums'])
        return dict(inputs=inputs, data_samples=self._sample(results))

    def _sample(self, results: dict) -> OccDataSample:
        sample = OccDataSample()
        if 'gt_occ' in results:
            sample.gt_occ = torch.from_numpy(np.ascontiguousarray(results['gt_occ'], dtype=np.uint8))
        for key in ('mask_camera', 'mask_lidar'):
            if key in results:
                setattr(sample, key, torch.from_numpy(np.ascontiguousarray(results[key], dtype=bool)))
        # pictures and metrics look at the key frame, whose views come first
        views = len(results['img']) if 'frame' not in results else int((np.asarray(results['frame']) == 0).sum())
        meta = {key: np.asarray(results[key], dtype=np.float32)[:views] for key in _CAMERA_META}
        meta.update({key: results[key][:views] for key in _VIEW_META if key in results})
        meta.update({key: np.asarray(results[key], dtype=np.float64) for key in _FLOAT64_META if key in results})
        meta.update({key: results[key] for key in _PLAIN_META if key in results})
        meta.update({key: results[key] for key in self.extra_meta_keys})
        sample.set_metainfo(meta)
        return sample

    @staticmethod
    def _cameras(results: dict) -> Cameras:
        def matrices(key: str) -> torch.Tensor:
            return torch.from_numpy(np.array(results[key], dtype=np.float64))[None]

        return Cameras(
            ref2cam=matrices('ref2cam'),
            K=matrices('cam2img'),
            sizes=torch.from_numpy(np.rint(results['ori_img_wh']).astype(np.int64))[None],
            frame=torch.from_numpy(np.asarray(results['frame'], dtype=np.int64)) if 'frame' in results else None,
            warp=matrices('warp') if 'warp' in results else None,
            network_projection=matrices('ref2img'),
        )

    @staticmethod
    def _rays(results: dict) -> Rays:
        rays = {key: torch.from_numpy(np.ascontiguousarray(value))[None] for key, value in results['rays'].items()}
        rays.pop('camera', None)
        return Rays(**rays, valid=torch.ones(rays['depth'].shape, dtype=torch.bool))

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
