"""Batching and normalisation of multi-camera images."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.models.data_preprocessors import Det3DDataPreprocessor
from mmdet3d.registry import MODELS


@MODELS.register_module()
class OccDataPreprocessor(Det3DDataPreprocessor):
    """``Det3DDataPreprocessor`` for samples with several camera images.

    Takes ``inputs['img']``, a list of (N, 3, H, W) uint8 or float tensors, and gives ``inputs['imgs']``, (B, N, 3, H, W)
    float32, normalised, padded at the right and at the bottom to a common size that ``pad_size_divisor`` divides. Depth maps,
    if there, ``inputs['depth']``, a list of (N, H, W), become ``inputs['depths']``, (B, N, H, W) float32, metres, padded alike
    with 0, which means none.

    Args:
        grid_mask: Config of the mask applied to normalised images in training, e.g. ``dict(type='OccGridMask')``, or None.
        mean: Mean of the three channels, 0..255, in the order after ``bgr_to_rgb``; None, like ``std``: no normalisation.
        std: Standard deviation of the three channels, positive.
        pad_size_divisor: Divides width and height of the padded images.
        **kwargs: See ``mmdet3d.models.Det3DDataPreprocessor`` (bgr_to_rgb, ...).

    Raises:
        ValueError: If ``mean`` and ``std`` are not three numbers each, or ``pad_size_divisor`` is no positive whole number.
    """

    def __init__(
        self,
        grid_mask: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pad_size_divisor: int = 1,
        **kwargs,
    ) -> None:
        normalised = mean is not None or std is not None
        if normalised and (np.shape(mean) != (3,) or np.shape(std) != (3,) or min(std) <= 0):
            raise ValueError(
                'data_preprocessor.mean and std must be three numbers each, one per channel, std above 0, or both None; '
                f'got mean={mean}, std={std}'
            )
        if not isinstance(pad_size_divisor, int) or pad_size_divisor < 1:
            raise ValueError(f'data_preprocessor.pad_size_divisor must be a positive whole number, got {pad_size_divisor}')
        super().__init__(mean=mean, std=std, pad_size_divisor=pad_size_divisor, **kwargs)
        self.grid_mask = MODELS.build(grid_mask) if grid_mask else None

    def simple_process(self, data: dict, training: bool = False) -> dict:
        """Moves one batch to the device, normalises, pads and stacks its images.

        Raises:
            ValueError: If the samples of the batch have different numbers of cameras, or depth maps of another size.
        """
        cameras = {tuple(img.shape[:-2]) for img in data['inputs']['img']}
        if len(cameras) > 1:
            raise ValueError(
                'all samples of a batch need the same number of cameras and channels, got image stacks of '
                f'(N, channels) {sorted(cameras)}; use batch_size=1 or a fixed dataset.cam_names'
            )
        depths = self._depths(data['inputs'])
        data = super().simple_process(data, training)
        if depths is not None:
            height, width = data['inputs']['imgs'].shape[-2:]
            padded = [F.pad(d, (0, width - d.shape[-1], 0, height - d.shape[-2])) for d in depths]
            data['inputs']['depths'] = torch.stack(padded)
        if training and self.grid_mask is not None:
            data['inputs']['imgs'] = self.grid_mask(data['inputs']['imgs'])
        return data

    def _depths(self, inputs: dict) -> list[torch.Tensor] | None:
        """Depth maps of the batch on the device, or None if there are none."""
        depths = inputs.get('depth')
        if depths is None:
            return None
        sizes = [(tuple(depth.shape), (img.shape[0], *img.shape[-2:])) for depth, img in zip(depths, inputs['img'])]
        if len(depths) != len(inputs['img']) or any(found != expected for found, expected in sizes):
            raise ValueError(
                f"inputs['depth'] needs one (N, H, W) map stack per sample, as large as its images; got {len(depths)} for "
                f'{len(inputs["img"])} samples with (found, expected) shapes {sizes}'
            )
        return [self.cast_data(depth).float() for depth in depths]
