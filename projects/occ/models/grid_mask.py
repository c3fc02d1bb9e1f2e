"""GridMask image augmentation (Chen et al., 2020, arXiv 2001.04086) as the authors of TPVFormer and SurroundOcc use it."""

import numpy as np
import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn


def draw_grid_mask(height: int, width: int, ratio: float, rng: np.random.RandomState) -> np.ndarray:
    """Draws one mask of kept grid bands.

    Rows and columns are covered by bands of one random period and random shifts; pixels inside a row band or a column band are
    kept. The order of the random draws is that of TPVFormer's dataloader/grid_mask.py.

    Args:
        height: Image height, pixels; at least 3.
        width: Image width, pixels.
        ratio: Width of a band relative to the period.
        rng: Source of randomness.

    Returns:
        (height, width) uint8, 1 = keep.
    """
    canvas_h, canvas_w = int(1.5 * height), int(1.5 * width)
    period = rng.randint(2, height)
    length = min(max(int(period * ratio + 0.5), 1), period - 1)
    shift_rows, shift_cols = rng.randint(period), rng.randint(period)

    def kept(size: int, shift: int) -> np.ndarray:
        position = np.arange(size) - shift
        # the canvas holds size // period bands; what lies behind the last one is not kept
        return (position >= 0) & (position // period < size // period) & (position % period < length)

    mask = kept(canvas_h, shift_rows)[:, None] | kept(canvas_w, shift_cols)[None, :]
    top, left = (canvas_h - height) // 2, (canvas_w - width) // 2
    return mask[top : top + height, left : left + width].astype(np.uint8)


@MODELS.register_module()
class OccGridMask(nn.Module):
    """Sets grid cells of all images of a batch to zero; used by ``OccDataPreprocessor`` in training only.

    One mask serves all cameras and samples of a batch. The GaussRender runs did not use it (their flag had no effect), so the
    shipped configs leave it out.

    Args:
        prob: Probability that a batch is masked.
        ratio: Width of a band relative to its period.
    """

    def __init__(self, prob: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        self.prob = prob
        self.ratio = ratio

    def forward(self, imgs: Tensor) -> Tensor:
        """Masks normalised images.

        Args:
            imgs: (..., H, W), already normalised, so that zero is the mean colour.

        Returns:
            The images, masked or as they came.
        """
        # seeded from torch's generator, whose state a checkpoint keeps
        rng = np.random.RandomState(int(torch.randint(2**31 - 1, (1,))))
        if rng.rand() > self.prob:
            return imgs
        height, width = imgs.shape[-2:]
        return imgs * torch.from_numpy(draw_grid_mask(height, width, self.ratio, rng)).to(imgs)
