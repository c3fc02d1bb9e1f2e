"""Image augmentation that keeps the projection matrices in step."""

import random
from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PhotoMetricDistortion
from mmdet3d.registry import TRANSFORMS

# of the covering factor, for limits written with few digits
_SCALE_TOLERANCE = 1e-2


@TRANSFORMS.register_module()
class ResizeCropFlipImages(BaseTransform):
    """Resizes, crops, flips and rotates all images of an item alike and moves ``ref2img`` and ``warp`` with them.

    Training draws ``r ~ U(resize_lim)``, the crop's upper edge from ``bot_pct_lim`` (the share cut off below), its left edge
    anywhere, a flip with probability 1/2 if ``rand_flip``, and an angle from ``rot_lim``. Testing uses the smallest resize
    that covers ``final_wh``, the mean of ``bot_pct_lim``, the horizontal middle, no flip and no rotation. With the default
    limits a 1600x900 image loses its four top rows and nothing else, and images of any other size are resized in training as
    in testing.

    One draw serves all views of an item, those of neighbouring frames included, so that a network which compares frames or
    cameras compares like with like; with ``per_camera`` each camera has a draw of its own, which its images of all frames
    share. The original images may have different sizes; all results have one.

    Only ``ref2img``, ``warp`` and ``img_wh`` change: ``cam2img``, by which the renderer looks, stays that of the original
    image. Pixel centres are at +0.5, so resizing scales pixel coordinates and nothing else; the factor is the ratio of the
    rounded sizes.
    Depth maps, if loaded, go along; they keep their metres, take the nearest pixel and have 0 (none) where an image is padded.

    Args:
        final_wh: Width and height of the result, pixels.
        training: Draw at random.
        resize_lim: Smallest and largest resize factor; None for the covering one, that of testing. They are for images of one
            size, and training refuses an image whose covering factor does not lie between them: the network would be tested
            on another scale than it was trained on.
        bot_pct_lim: Smallest and largest share of the height cut off at the bottom.
        rot_lim: Smallest and largest angle in degrees, counter-clockwise.
        rand_flip: Mirror left-right with probability 1/2. The scene is not mirrored: ``ref2img`` says where its points went.
        per_camera: Draw once per camera instead of once per item.
        relative: ``resize_lim`` are multiples of the covering factor, and not of the image's own size: for cameras of
            different sizes.

    Raises:
        ValueError: If a limit pair is out of order or out of range, or a size is not positive.
    """

    def __init__(
        self,
        final_wh: Sequence[int],
        training: bool,
        resize_lim: Sequence[float] | None = None,
        bot_pct_lim: Sequence[float] = (0.0, 0.0),
        rot_lim: Sequence[float] = (0.0, 0.0),
        rand_flip: bool = False,
        per_camera: bool = False,
        relative: bool = False,
    ) -> None:
        if np.shape(final_wh) != (2,) or min(final_wh) <= 0:
            raise ValueError(f'ResizeCropFlipImages.final_wh must be (width, height) in pixels, got {final_wh}')
        if resize_lim is None:
            resize_lim, relative = (1.0, 1.0), True
        for key, limits in (('resize_lim', resize_lim), ('bot_pct_lim', bot_pct_lim), ('rot_lim', rot_lim)):
            if np.shape(limits) != (2,) or limits[0] > limits[1]:
                raise ValueError(f'ResizeCropFlipImages.{key} must be (smallest, largest), got {limits}')
        if resize_lim[0] <= 0:
            raise ValueError(f'ResizeCropFlipImages.resize_lim must be positive, got {resize_lim}')
        if not 0 <= bot_pct_lim[0] <= bot_pct_lim[1] < 1:
            raise ValueError(f'ResizeCropFlipImages.bot_pct_lim are shares of the height, from 0 to below 1, got {bot_pct_lim}')
        self.final_wh = (int(final_wh[0]), int(final_wh[1]))
        self.training = training
        self.resize_lim = tuple(resize_lim)
        self.bot_pct_lim = tuple(bot_pct_lim)
        self.rot_lim = tuple(rot_lim)
        self.rand_flip = rand_flip
        self.per_camera = per_camera
        self.relative = relative

    def transform(self, results: dict) -> dict:
        """Changes ``img``, ``ref2img``, ``img_wh`` and, if there, ``warp`` and ``depth``."""
        ref2img = np.array(results['ref2img'], dtype=np.float64)
        warp = np.array(results['warp'], dtype=np.float64) if 'warp' in results else None
        if self.training and not self.relative:
            self._check_scales(results)
        draws_of: dict[str, list[float] | None] = {}
        for view, image in enumerate(results['img']):
            name = results['cam_names'][view] if self.per_camera else ''
            if name not in draws_of:
                draws_of[name] = [random.random() for _ in range(5)] if self.training else None
            draws = draws_of[name]
            results['img'][view], pixels = self._apply(image, draws)
            if 'depth' in results:
                results['depth'][view] = self._apply(results['depth'][view], draws, nearest=True)[0]
            ref2img[view, :3] = pixels @ ref2img[view, :3]
            if warp is not None:
                warp[view] = pixels @ warp[view]
        results['ref2img'] = ref2img
        if warp is not None:
            results['warp'] = warp
        results['img_wh'] = np.tile(np.array(self.final_wh, dtype=np.float64), (len(ref2img), 1))
        return results

    def _covering(self, image: np.ndarray) -> float:
        """The smallest resize factor with which an image covers ``final_wh``."""
        return max(self.final_wh[1] / image.shape[0], self.final_wh[0] / image.shape[1])

    def _check_scales(self, results: dict) -> None:
        smallest, largest = self.resize_lim
        for name, image in zip(results['cam_names'], results['img']):
            covering = self._covering(image)
            if not smallest * (1 - _SCALE_TOLERANCE) <= covering <= largest * (1 + _SCALE_TOLERANCE):
                raise ValueError(
                    f'frame {results.get("token", "?")}: ResizeCropFlipImages.resize_lim=({smallest:g}, {largest:g}) is for '
                    f'images of another size than those of {name}, {image.shape[1]} x {image.shape[0]}: testing resizes them '
                    f'by {covering:.4g} to cover {self.final_wh[0]} x {self.final_wh[1]}; set relative=True and give '
                    'resize_lim as multiples of that factor, e.g. (1, 1)'
                )

    def _apply(self, image: np.ndarray, draws: Sequence[float] | None, nearest: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Augmented image and the (3, 3) matrix that takes homogeneous pixels of the old image to the new one."""
        height, width = image.shape[:2]
        final_w, final_h = self.final_wh
        covering = self._covering(image)
        if draws is None:
            resize = covering
            cut, left, flip, angle = sum(self.bot_pct_lim) / 2, 0.5, False, 0.0
        else:
            resize = _between(self.resize_lim, draws[0]) * (covering if self.relative else 1)
            cut, left = _between(self.bot_pct_lim, draws[1]), draws[2]
            flip, angle = self.rand_flip and draws[3] < 0.5, _between(self.rot_lim, draws[4])
        # the small number keeps 1600 * 0.44 from becoming 703
        new_w, new_h = int(width * resize + 1e-6), int(height * resize + 1e-6)
        x = int(left * max(0, new_w - final_w))
        y = int((1 - cut) * new_h) - final_h

        pixels = np.diag([new_w / width, new_h / height, 1.0])
        if (new_w, new_h) != (width, height):
            image = _nearest(image, (new_w, new_h)) if nearest else _resize(image, (new_w, new_h))
        image = mmcv.imcrop(image, np.array([x, y, x + final_w - 1, y + final_h - 1]), pad_fill=0).astype(image.dtype)
        pixels[:2] -= np.outer([x, y], pixels[2])
        if flip:
            image = mmcv.imflip(image)
            pixels[0] = final_w * pixels[2] - pixels[0]
        if angle != 0:
            image = mmcv.imrotate(image, -angle, interpolation='nearest' if nearest else 'bilinear')
            cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
            centre = np.eye(3)
            centre[:2, 2] = final_w / 2, final_h / 2
            pixels = centre @ turn @ np.linalg.inv(centre) @ pixels
        return image, pixels

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(final_wh={self.final_wh}, training={self.training}, resize_lim={self.resize_lim}, '
            f'bot_pct_lim={self.bot_pct_lim}, rot_lim={self.rot_lim}, rand_flip={self.rand_flip}, '
            f'per_camera={self.per_camera}, relative={self.relative})'
        )


@TRANSFORMS.register_module()
class MultiViewPhotoMetricDistortion(BaseTransform):
    """Photometric distortion of every view, of whatever frame, with draws of its own.

    Brightness, contrast, saturation, hue and channel order change with probability 1/2 each, by mmdet's
    ``PhotoMetricDistortion``, which clips saturation to its valid range (mmdetection3d's variant does not). No geometry
    changes; ``img`` becomes float32 and may leave 0..255.

    Args:
        brightness_delta: Largest change of brightness.
        contrast_range: Smallest and largest factor of contrast.
        saturation_range: Smallest and largest factor of saturation.
        hue_delta: Largest change of hue, degrees.

    Raises:
        ValueError: If a change is negative or a range is out of order.
    """

    def __init__(
        self,
        brightness_delta: int = 32,
        contrast_range: Sequence[float] = (0.5, 1.5),
        saturation_range: Sequence[float] = (0.5, 1.5),
        hue_delta: int = 18,
    ) -> None:
        for key, largest, limit in (('brightness_delta', brightness_delta, 255), ('hue_delta', hue_delta, 360)):
            if not 0 <= largest <= limit:
                raise ValueError(f'MultiViewPhotoMetricDistortion.{key} must lie in 0..{limit}, got {largest}')
        for key, limits in (('contrast_range', contrast_range), ('saturation_range', saturation_range)):
            if np.shape(limits) != (2,) or not 0 <= limits[0] <= limits[1]:
                raise ValueError(f'MultiViewPhotoMetricDistortion.{key} must be (smallest, largest) factor, got {limits}')
        self.distortion = PhotoMetricDistortion(brightness_delta, contrast_range, saturation_range, hue_delta)

    def transform(self, results: dict) -> dict:
        """Changes ``img``."""
        results['img'] = [self.distortion({'img': image})['img'] for image in results['img']]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.distortion})'


def _between(limits: Sequence[float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def _nearest(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Takes at each new pixel's centre what lies there."""
    (height, width), (new_w, new_h) = depth.shape, size
    rows = ((np.arange(new_h) + 0.5) * height / new_h).astype(np.int64)
    columns = ((np.arange(new_w) + 0.5) * width / new_w).astype(np.int64)
    return depth[rows[:, None], columns]


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased resize, as the published loaders do it: in 8 bits, whatever the type of ``image``."""
    small = mmcv.imresize(np.clip(np.round(image), 0, 255).astype(np.uint8), size, interpolation='bicubic', backend='pillow')
    return small.astype(image.dtype)
