"""What methods do that compare images with images: resize them as a whole, and change their colours alike."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF


@TRANSFORMS.register_module()
class ResizeImages(BaseTransform):
    """Resizes whole images, each axis on its own, and moves ``ref2img`` and ``warp`` along. Nothing is cut off.

    Needs the uint8 images of :class:`LoadMultiViewImages`; comes after depth maps are loaded or without them.

    Args:
        size: (height, width), pixels.
        keep_originals: Keep the resized images under ``originals`` too, where no later transform changes their colours, for
            targets that compare colours: a tenth of what the images on disk would take.

    Raises:
        ValueError: If the size is not positive.
    """

    def __init__(self, size: Sequence[int], keep_originals: bool = False) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'ResizeImages.size must be (height, width) in pixels, got {size}')
        self.size = (int(size[0]), int(size[1]))
        self.keep_originals = keep_originals

    def transform(self, results: dict) -> dict:
        """Changes ``img``, ``img_wh``, ``ref2img`` and ``warp``.

        Raises:
            ValueError: If images are not uint8, or depth maps were loaded, which cannot be resized like colours.
        """
        if 'depth' in results or results['img'][0].dtype != np.uint8:
            raise ValueError(
                f'frame {results["token"]}: ResizeImages resizes uint8 images without depth maps; put it right after '
                'LoadMultiViewImages(to_float32=False), or use ResizeCropFlipImages'
            )
        height, width = self.size
        ref2img = np.array(results['ref2img'], dtype=np.float64)
        warp = np.array(results['warp'], dtype=np.float64)
        for view, image in enumerate(results['img']):
            scale = np.diag([width / image.shape[1], height / image.shape[0], 1.0])
            # antialiased, like PIL in the original
            results['img'][view] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
            ref2img[view, :3] = scale @ ref2img[view, :3]
            warp[view] = scale @ warp[view]
        if self.keep_originals:
            results['originals'] = [image.copy() for image in results['img']]
        results.update(ref2img=ref2img, warp=warp, img_wh=np.tile(np.array([width, height], dtype=np.float64), (len(warp), 1)))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, keep_originals={self.keep_originals})'


@TRANSFORMS.register_module()
class JitterColors(BaseTransform):
    """Brightness, contrast, saturation and hue, in random order, with the same draw for all cameras and frames of an item.

    Networks that compare frames see the same change in all of them. The images under ``originals`` stay as they are.

    Args:
        brightness: Largest relative change.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest change, as a share of the colour circle.
        prob: Probability that an item is changed at all.
        per_image: Draw anew for every image, as the released code of GaussianOcc does.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.1,
        prob: float = 0.5,
        per_image: bool = False,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'JitterColors.prob must lie between 0 and 1, got {prob}')
        self.jitter = ColorJitter(brightness, contrast, saturation, hue)
        self.prob = prob
        self.per_image = per_image

    def _draw(self) -> tuple:
        jitter = self.jitter
        return ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)

    def transform(self, results: dict) -> dict:
        """Changes ``img``."""
        if torch.rand(()) >= self.prob:
            return results
        draws = self._draw()
        for view, image in enumerate(results['img']):
            results['img'][view] = _changed(image, *(self._draw() if self.per_image else draws))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.jitter}, prob={self.prob}, per_image={self.per_image})'


def _changed(image: np.ndarray, order: torch.Tensor, *amounts: float | None) -> np.ndarray:
    """A BGR image (H, W, 3) of any number format, 0..255, with changed colours."""
    functions = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    tensor = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))).float() / 255
    for index in order.tolist():
        if amounts[index] is not None:
            tensor = functions[index](tensor, amounts[index])
    changed = (tensor * 255).numpy().transpose(1, 2, 0)[..., ::-1]
    return np.ascontiguousarray(np.rint(changed) if image.dtype == np.uint8 else changed).astype(image.dtype)
