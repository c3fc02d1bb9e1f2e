"""Which pixels of a camera show the own car."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.file_arrays import read_bytes
from projects.occ.image_files import ImageError, decode_values

VALID = ('zero', 'nonzero')


def read_image_mask(path: str, what: str, valid: str, backend_args: dict | None = None) -> np.ndarray:
    """Mask image of one camera.

    Args:
        path: A grey image of the size of the camera's images.
        what: Name of the file in messages.
        valid: Which values mean that a pixel shows the scene: ``'zero'`` (SurroundDepth's masks of DDAD) or ``'nonzero'``
            (those of nuScenes, and others of DDAD).
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (H, W) bool, True where the pixel shows the scene.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image.
    """
    data = read_bytes(path, what, "check dataset.data_prefix['mask']", backend_args)
    try:
        image = decode_values(data, grey=True)
    except ImageError as error:
        raise ValueError(
            f"{what}: '{path}' ({len(data)} bytes) is no image that can be read: {error}; copy it again"
        ) from error
    return image == 0 if valid == 'zero' else image != 0


@TRANSFORMS.register_module()
class LoadSelfOcclusionMasks(BaseTransform):
    """Loads the masks of the pixels that show the scene and not the own car.

    Needs ``mask_paths``, one per image of the key frame, and ``ori_img_wh``; adds ``image_masks``, a list of (H, W) bool, True
    where the pixel shows the scene, at the size of the *original* images.

    Args:
        valid: ``'zero'`` or ``'nonzero'``, see :func:`read_image_mask`.
        backend_args: Arguments of mmengine's file backend.
    """

    def __init__(self, valid: str = 'zero', backend_args: dict | None = None) -> None:
        if valid not in VALID:
            raise ValueError(f'LoadSelfOcclusionMasks.valid must be one of {VALID}, got {valid!r}')
        self.valid = valid
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Loads the masks.

        Raises:
            FileNotFoundError: If a mask is missing.
            ValueError: If the data set names none, or one has another size than its image or leaves no pixel.
        """
        token = results['token']
        if not results.get('mask_paths'):
            raise ValueError(
                f'frame {token}: the data set names no self-occlusion masks (mask_paths), so LoadSelfOcclusionMasks has '
                "nothing to load; DDADDataset names them if data_prefix['mask'] is set"
            )
        masks = []
        for name, path, size in zip(results['cam_names'], results['mask_paths'], results['ori_img_wh']):
            what = f'self-occlusion mask of {name}, frame {token}'
            mask = read_image_mask(path, what, self.valid, self.backend_args)
            if mask.shape != (int(size[1]), int(size[0])):
                raise ValueError(
                    f"{what}: '{path}' has {mask.shape[1]} x {mask.shape[0]} pixels, its image {int(size[0])} x {int(size[1])}"
                )
            if not mask.any():
                raise ValueError(
                    f"{what}: '{path}' leaves no pixel; LoadSelfOcclusionMasks.valid={self.valid!r} may be the wrong way round"
                )
            masks.append(mask)
        results['image_masks'] = masks
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(valid={self.valid!r})'
