"""Reading images from files."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get

_LAYOUT = 'docs/datasets.md, "Folders"'
# those of mmcv that give BGR and decode what the flag asks for
_DECODERS = ('cv2', 'pillow')


def _read_bytes(path: str, backend_args: dict | None, what: str, key: str) -> bytes:
    try:
        return get(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(
            f"{what}: '{path}' does not exist. The path is dataset.data_root + {key} + what the annotation file says; check "
            f'these config keys against {_LAYOUT}'
        ) from None


def is_complete(data: bytes) -> bool:
    """Whether image bytes have their end mark: decoders paint the lost part of a truncated file grey instead of failing."""
    for start, end in ((b'\xff\xd8', b'\xff\xd9'), (b'\x89PNG', b'IEND')):
        if data.startswith(start):
            return end in data[-1024:]
    return len(data) > 0


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Loads the images of all cameras of a frame.

    Needs ``img_paths`` and ``cam_names``; adds ``img`` (list of N (H, W, 3) arrays, BGR, 0..255), ``img_wh`` and
    ``ori_img_wh`` (N, 2) in pixels.

    Args:
        to_float32: Return float32 instead of uint8.
        backend_args: Arguments of mmengine's file backend.
        imdecode_backend: Decoder of mmcv, ``'cv2'`` or ``'pillow'``.

    Raises:
        ValueError: If the decoder is another.
    """

    def __init__(self, to_float32: bool = False, backend_args: dict | None = None, imdecode_backend: str = 'cv2') -> None:
        if imdecode_backend not in _DECODERS:
            raise ValueError(f'LoadMultiViewImages.imdecode_backend must be one of {_DECODERS}, got {imdecode_backend!r}')
        self.to_float32 = to_float32
        self.backend_args = backend_args
        self.imdecode_backend = imdecode_backend

    def transform(self, results: dict) -> dict:
        """Loads the images.

        Raises:
            FileNotFoundError: If an image is missing.
            ValueError: If an image is damaged or cut short.
        """
        images = []
        for name, path in zip(results['cam_names'], results['img_paths']):
            what = f'image of {name}, frame {results["token"]}'
            data = _read_bytes(path, self.backend_args, what, "dataset.data_prefix['img']")
            image = None
            if is_complete(data):
                image = mmcv.imfrombytes(data, flag='color_ignore_orientation', backend=self.imdecode_backend)
            if image is None:
                raise ValueError(
                    f"{what}: '{path}' ({len(data)} bytes) is not a complete image; copy it again from the data set "
                    f"(dataset.data_root + dataset.data_prefix['img'], {_LAYOUT})"
                )
            images.append(image.astype(np.float32) if self.to_float32 else image)
        results['img'] = images
        sizes = np.array([image.shape[1::-1] for image in images], dtype=np.float64)
        results['img_wh'] = sizes
        results['ori_img_wh'] = sizes.copy()
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(to_float32={self.to_float32}, imdecode_backend={self.imdecode_backend!r})'
