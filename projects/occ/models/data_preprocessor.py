"""From the samples of a data loader to the batch that a model takes."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.models.data_preprocessors import Det3DDataPreprocessor
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.structures import Cameras, OccBatch, OccDataSample, Rays, VoxelGrid


@MODELS.register_module()
class OccDataPreprocessor(Det3DDataPreprocessor):
    """Makes an :class:`OccBatch` of samples with several camera images: the border where data enter a model.

    Takes what ``PackOccInputs`` made: ``inputs['img']``, a list of (V, 3, H, W) uint8 or float tensors, ``inputs['cameras']``,
    a list of :class:`Cameras` of one sample each, ``inputs['img_wh']``, and whatever else is there. Gives ``inputs``, an
    :class:`OccBatch` on the device of the model: images (B, V, 3, H, W) float32, normalised, padded at the right and at the
    bottom to a common size that ``pad_size_divisor`` divides; cameras float32; depth maps padded alike with 0, which means
    none; labels and masks of the data samples, stacked; rays padded to one number. Labels and cameras are checked here, on the
    CPU, and trusted afterwards.

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
        self.grid: VoxelGrid | None = None
        self.renders = False

    def expect(self, grid: VoxelGrid, renders: bool) -> None:
        """Tells what the model needs; called by the model that owns this.

        Args:
            grid: Voxel grid that labels have to fit.
            renders: Whether the cameras are rendered into, which skew forbids.
        """
        self.grid, self.renders = grid, renders

    def simple_process(self, data: dict, training: bool = False) -> dict:
        """Checks one batch and moves it to the device.

        Returns:
            ``inputs``, an :class:`OccBatch`, and ``data_samples``, the samples on the device.

        Raises:
            ValueError: If the samples of the batch have different numbers of cameras, images without cameras, depth maps of
                another size, or labels that do not fit the grid.
        """
        inputs = dict(data['inputs'])
        samples = data.get('data_samples') or [OccDataSample() for _ in inputs['img']]
        stacks = {tuple(img.shape[:-2]) for img in inputs['img']}
        if len(stacks) > 1:
            raise ValueError(
                'all samples of a batch need the same number of cameras and channels, got image stacks of '
                f'(N, channels) {sorted(stacks)}; use batch_size=1 or a fixed dataset.cam_names'
            )
        tokens = [str(sample.get('token', '?')) for sample in samples]
        cameras = self._cameras(inputs, tokens)
        self._check_labels(samples, tokens)
        data = super().simple_process(dict(inputs=dict(img=inputs['img']), data_samples=samples), training)
        images, samples = data['inputs']['imgs'], data['data_samples']
        if training and self.grid_mask is not None:
            images = self.grid_mask(images)

        def stacked(key: str) -> Tensor | None:
            return torch.stack([value.to(self.device) for value in inputs[key]]) if key in inputs else None

        batch = OccBatch(
            images=images,
            image_sizes=stacked('img_wh').float(),
            cameras=cameras.to(device=self.device, dtype=torch.float32),
            labels=_stack_field(samples, 'gt_occ', torch.int64),
            masks={
                name: mask
                for name in ('camera', 'lidar')
                if (mask := _stack_field(samples, f'mask_{name}', torch.bool)) is not None
            },
            view_missing=stacked('view_missing'),
            scene=stacked('scene'),
            **{key: self._lists(inputs, key) for key in ('originals', 'image_masks', 'pseudo_labels')},
            depths=self._depths(inputs, images),
            voxel_pixels=stacked('voxel_pixels'),
            voxel_visible=stacked('voxel_visible'),
            frustum_index=stacked('frustum_index'),
            rays=self._rays(inputs, tokens),
            teacher=inputs.get('teacher'),
            frustums=inputs['frustums'][0] if 'frustums' in inputs else None,
            tokens=tokens,
        )
        return dict(inputs=batch, data_samples=samples)

    def _cameras(self, inputs: dict, tokens: Sequence[str]) -> Cameras:
        """Cameras of the batch on the CPU."""
        if 'cameras' not in inputs:
            raise ValueError(
                f"the inputs of the samples {list(tokens)} hold images but no 'cameras'; put PackOccInputs at the end of the "
                'pipeline, or give a list of projects.occ.structures.Cameras with B = 1'
            )
        for token, item, img in zip(tokens, inputs['cameras'], inputs['img'], strict=True):
            if item.num_cameras != len(img) or item.batch_size != 1:
                raise ValueError(
                    f'sample {token} has {len(img)} images but cameras of {item.batch_size} x {item.num_cameras} views'
                )
            item.checked(f'sample {token}', skew=not self.renders)
        return Cameras.stack(inputs['cameras'])

    def _check_labels(self, samples: Sequence[OccDataSample], tokens: Sequence[str]) -> None:
        for sample, token in zip(samples, tokens, strict=True):
            if self.grid is not None and 'gt_occ' in sample:
                self.grid.check_labels(sample.gt_occ, f'gt_occ of sample {token}')

    def _rays(self, inputs: dict, tokens: Sequence[str]) -> Rays | None:
        """Measured rays of the batch on the device, padded to one number."""
        if 'rays' not in inputs:
            return None
        for token, frame in zip(tokens, inputs.get('rays_frame', ())):
            if self.grid is not None and frame != self.grid.frame:
                raise ValueError(
                    f"sample {token}: its rays are in the {frame} frame, the model's grid is in the {self.grid.frame} frame; "
                    'give data set and model the same grid'
                )
        ignore_index = 255 if self.grid is None else self.grid.ignore_index
        return Rays.stack(inputs['rays'], ignore_index).to(self.device)

    def _lists(self, inputs: dict, key: str) -> list[list[Tensor]] | None:
        """Tensors of one image each, whose sizes may differ, on the device; None if a sample has none."""
        return [[part.to(self.device) for part in row] for row in inputs[key]] if key in inputs else None

    def _depths(self, inputs: dict, images: Tensor) -> Tensor | None:
        """Depth maps (B, V, H, W) of the batch on the device, padded like the images, or None if there are none."""
        depths = inputs.get('depth')
        if depths is None:
            return None
        sizes = [(tuple(depth.shape), (img.shape[0], *img.shape[-2:])) for depth, img in zip(depths, inputs['img'])]
        if len(depths) != len(inputs['img']) or any(found != expected for found, expected in sizes):
            raise ValueError(
                f"inputs['depth'] needs one (V, H, W) map stack per sample, as large as its images; got {len(depths)} for "
                f'{len(inputs["img"])} samples with (found, expected) shapes {sizes}'
            )
        height, width = images.shape[-2:]
        moved = [self.cast_data(depth).float() for depth in depths]
        return torch.stack([F.pad(d, (0, width - d.shape[-1], 0, height - d.shape[-2])) for d in moved])


def _stack_field(samples: Sequence[OccDataSample], name: str, dtype: torch.dtype) -> Tensor | None:
    """A data field of all samples, (B, ...), or None if a sample has none."""
    if any(name not in sample for sample in samples):
        return None
    return torch.stack([torch.as_tensor(sample.get(name)) for sample in samples]).to(dtype)
