"""Reading images from files."""

import logging

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.logging import print_log

from projects.occ.file_arrays import read_bytes
from projects.occ.image_files import ImageError, decode_image
from projects.occ.structures.frame_record import size_problem

_LAYOUT = 'docs/datasets.md, "Folders"'
# those of mmcv that give BGR and decode what the flag asks for
_DECODERS = ('cv2', 'pillow')


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Loads the images of all views: all cameras of the key frame and of its neighbours, whatever their sizes.

    Needs ``img_paths`` and ``cam_names``, or ``img`` (and perhaps ``depth``) if the images are in memory already; adds

    * ``img``: list of V (H, W, 3) arrays, BGR, 0..255;
    * ``img_wh`` and ``ori_img_wh``: (V, 2) width and height in pixels;
    * ``warp``: (V, 3, 3) float64, homogeneous pixels of the original image -> pixels of ``img``: the identity here; every
      transform that moves pixels moves it along, as it does ``ref2img``;
    * with ``keep_originals`` also ``originals``: list of V (H, W, 3) uint8 arrays, BGR, which no transform changes.

    Args:
        to_float32: Return float32 instead of uint8.
        backend_args: Arguments of mmengine's file backend.
        imdecode_backend: Decoder of mmcv, ``'cv2'`` or ``'pillow'``.
        keep_originals: Keep the images as they are on disk beside those of the network, for targets that compare colours.

    Raises:
        ValueError: If the decoder is another.
    """

    reads = 'image'

    def __init__(
        self,
        to_float32: bool = False,
        backend_args: dict | None = None,
        imdecode_backend: str = 'cv2',
        keep_originals: bool = False,
    ) -> None:
        if imdecode_backend not in _DECODERS:
            raise ValueError(f'LoadMultiViewImages.imdecode_backend must be one of {_DECODERS}, got {imdecode_backend!r}')
        self.to_float32 = to_float32
        self.backend_args = backend_args
        self.imdecode_backend = imdecode_backend
        self.keep_originals = keep_originals
        self._warned: set[str] = set()

    def transform(self, results: dict) -> dict:
        """Loads the images.

        Raises:
            FileNotFoundError: If an image is missing.
            ValueError: If an image is damaged or cut short, or has another size than its intrinsics are for or than a
                depth map that came with it.
        """
        images = results['img'] if 'img' in results else self._load(results)
        for name, image, depth in zip(results['cam_names'], images, results.get('depth', ())):
            if depth.shape != image.shape[:2]:
                raise ValueError(
                    f'frame {results["token"]!r}: the depth map of {name} has the shape {depth.shape}, its image '
                    f'{image.shape[:2]}'
                )
        if self.keep_originals:
            results['originals'] = [
                image.copy() if image.dtype == np.uint8 else np.clip(np.round(image), 0, 255).astype(np.uint8)
                for image in images
            ]
        results['img'] = [image.astype(np.float32) if self.to_float32 else image for image in images]
        self._check_sizes(results, images)
        sizes = np.array([image.shape[1::-1] for image in images], dtype=np.float64)
        results['img_wh'] = sizes
        results['ori_img_wh'] = sizes.copy()
        results['warp'] = np.tile(np.eye(3), (len(images), 1, 1))
        return results

    def _check_sizes(self, results: dict, images: list[np.ndarray]) -> None:
        """Refuses images of another size than their intrinsics are for; warns once a camera where that is only likely."""
        expected = results.get('cam2img_wh', np.zeros((len(images), 2), dtype=np.int64))
        for view, (name, image) in enumerate(zip(results['cam_names'], images)):
            if 'cam2img' not in results:
                continue
            problem = size_problem(results['cam2img'][view], image.shape[1::-1], expected[view])
            path = results['img_paths'][view] if 'img_paths' in results else 'in memory'
            message = f'image of {name}, frame {results["token"]}: {path!r} {problem}'
            if problem and expected[view].min() > 0:
                raise ValueError(message)
            if problem and name not in self._warned:
                self._warned.add(name)
                print_log(message, logger='current', level=logging.WARNING)

    def _load(self, results: dict) -> list[np.ndarray]:
        images: list[np.ndarray] = []
        seen: dict[str, int] = {}
        remedy = (
            "the path is dataset.data_root + dataset.data_prefix['img'] + what the annotation file says; check these keys "
            f'({_LAYOUT}) or copy the file again'
        )
        for name, path in zip(results['cam_names'], results['img_paths']):
            # a key frame that stands in for a missing neighbour is decoded once
            if path in seen:
                images.append(images[seen[path]].copy())
                continue
            seen[path] = len(images)
            what = f'image of {name}, frame {results["token"]}'
            data = read_bytes(path, what, remedy, self.backend_args)
            try:
                image = decode_image(data, self.imdecode_backend)
            except ImageError as error:
                raise ValueError(
                    f"{what}: '{path}' ({len(data)} bytes) is not a complete image; copy it again from the data set "
                    f"({error}; dataset.data_root + dataset.data_prefix['img'], {_LAYOUT})"
                ) from error
            images.append(image)
        return images

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(to_float32={self.to_float32}, imdecode_backend={self.imdecode_backend!r}, '
            f'keep_originals={self.keep_originals})'
        )
