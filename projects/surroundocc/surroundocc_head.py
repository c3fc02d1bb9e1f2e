"""From volumes of several resolutions to class logits of every voxel."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmdet3d.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor, nn

from projects.occ.models.base_occ_head import BaseOccHead
from projects.occ.models.layers import recompute
from projects.occ.structures import OccPrediction, VoxelGrid

from .volumes import per_axis, volume_cells

# A logit this far below the others has a softmax of exactly 0, also in half precision.
ABSENT_LOGIT = -1e4


@MODELS.register_module()
class SurroundOccHead(BaseOccHead):
    """Up-samples the coarsest volume, adds the finer ones on the way and classifies at every resolution.

    A block with stride 1 is a 3x3x3 convolution, one with a larger stride a transposed convolution with the stride as kernel
    size; a norm and ReLU follow. Blocks in ``out_indices`` feed a bias-free classifier; a volume is added behind the first
    other block that reaches its resolution.

    Args:
        grid: The voxel grid.
        scales: Voxels per cell of the volumes, one number or one for each of x, y, z; fine to coarse, the same as in the view
            encoder.
        embed_dims: Channels of the volumes, fine to coarse, the same as in the view encoder.
        channels: Output channels of the blocks; those of the last one are the voxel features.
        strides: Strides of the blocks, one number or one for each of x, y, z.
        out_indices: Blocks that are classified, coarse to fine; the last one must be the last block.
        norm_cfg: Norm of the blocks.
        use_semantic: False predicts free or occupied only, with one logit per voxel. It stands in the channel of the first
            occupied class of the grid; needs ``loss_occ.binary=True``.
        threshold: Without semantics: probability from which a voxel is predicted occupied. The authors take 0.25 because
            occupied voxels are rare.
        with_cp: Recompute the blocks in the backward pass: less memory, more time, same numbers.
        **kwargs: ``loss_occ`` and ``init_cfg`` of the base class.

    Raises:
        ValueError: If blocks, volumes and grid do not fit together.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        scales: Sequence[int | Sequence[int]] = (2, 4, 8),
        embed_dims: Sequence[int] = (128, 256, 512),
        channels: Sequence[int] = (256, 256, 128, 128, 64, 64, 32),
        strides: Sequence[int | Sequence[int]] = (1, 2, 1, 2, 1, 2, 1),
        out_indices: Sequence[int] = (0, 2, 4, 6),
        norm_cfg: Mapping[str, Any] | None = None,
        use_semantic: bool = True,
        threshold: float = 0.25,
        with_cp: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(grid=grid, **kwargs)
        if not use_semantic and self.loss_occ is not None and not getattr(self.loss_occ, 'binary', False):
            raise ValueError('occ_head.use_semantic=False needs a loss that ignores classes: set loss_occ.binary=True')
        if not 0 < threshold < 1:
            raise ValueError(f'occ_head.threshold must be a probability between 0 and 1, got {threshold}')
        self.use_semantic, self.with_cp = use_semantic, with_cp
        self.threshold = threshold
        self.out_indices = tuple(out_indices)
        self.embed_dims = tuple(embed_dims)
        scales = [per_axis(scale, 'occ_head.scales') for scale in scales]
        strides = [per_axis(stride, 'occ_head.strides') for stride in strides]
        self.cells = [volume_cells(self.grid, scale, 'occ_head.scales') for scale in scales]
        self.skips = plan_skips(scales, embed_dims, channels, strides, out_indices)
        self.deblocks = ModuleList()
        in_channels = embed_dims[-1]
        for out_channels, stride in zip(channels, strides):
            if max(stride) > 1:
                conv = nn.ConvTranspose3d(in_channels, out_channels, kernel_size=stride, stride=stride, bias=False)
            else:
                conv = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
            norm = build_norm_layer(dict(norm_cfg or dict(type='GN', num_groups=16)), out_channels)[1]
            self.deblocks.append(nn.Sequential(conv, norm, nn.ReLU(inplace=True)))
            in_channels = out_channels
        num_logits = self.grid.num_classes if use_semantic else 1
        self.occ = ModuleList(nn.Conv3d(channels[i], num_logits, kernel_size=1, bias=False) for i in out_indices)
        if self.loss_occ is None:
            # rendering sees the finest output alone; parameters without gradient stop a distributed training
            for coarse in self.occ[:-1]:
                coarse.requires_grad_(False)

    def _check_volumes(self, volumes: Sequence[Tensor]) -> None:
        expected = [(dims, *cells) for dims, cells in zip(self.embed_dims, self.cells)]
        if [tuple(volume.shape[1:]) for volume in volumes] != expected:
            raise ValueError(
                f'occ_head expects volumes (B, C, X, Y, Z) with {expected}, got {[tuple(v.shape) for v in volumes]}; '
                'model.view_encoder and model.occ_head must have the same grid, scales and embed_dims'
            )

    def _per_class(self, score: Tensor) -> Tensor:
        """Logits of all classes (B, C, ...) from the logit of being occupied (B, 1, ...)."""
        logits = score.new_full((len(score), self.grid.num_classes, *score.shape[2:]), ABSENT_LOGIT)
        logits[:, self.grid.free_index] = 0.0
        logits[:, self.grid.semantic_classes[0]] = score[:, 0]
        return logits

    def classify(self, prediction: OccPrediction) -> Tensor:
        """See the base; without semantics, voxels are occupied where that has a probability above ``threshold``."""
        if self.use_semantic:
            return super().classify(prediction)
        free, occupied = self.grid.free_index, self.grid.semantic_classes[0]
        logits = prediction.logits[-1]
        above = logits[:, occupied] - logits[:, free] > math.log(self.threshold / (1 - self.threshold))
        return torch.where(above, occupied, free)

    def forward(self, scene: Sequence[Tensor]) -> OccPrediction:
        """Classifies.

        Args:
            scene: Volumes fine to coarse, each (B, C_l, X_l, Y_l, Z_l).

        Returns:
            Logits coarse to fine, each (B, K, X_s, Y_s, Z_s), and voxel features (B, F, X, Y, Z) of the last block.

        Raises:
            ValueError: If the volumes do not have the shapes that the head was built for.
        """
        self._check_volumes(scene)
        feats = scene[-1]
        logits = []
        for index, block in enumerate(self.deblocks):
            feats = recompute(block, feats) if self.with_cp else block(feats)
            if index in self.out_indices:
                score = self.occ[len(logits)](feats)
                logits.append(score if self.use_semantic else self._per_class(score))
            elif index in self.skips:
                feats = feats + scene[self.skips[index]]
        return OccPrediction(logits=logits, voxel_feats=feats)


def plan_skips(
    scales: Sequence[tuple[int, int, int]],
    embed_dims: Sequence[int],
    channels: Sequence[int],
    strides: Sequence[tuple[int, int, int]],
    out_indices: Sequence[int],
) -> dict[int, int]:
    """Finds the block behind which each volume but the coarsest is added: block -> volume.

    Raises:
        ValueError: If lists do not match, the last block is not the last output at full resolution, or a volume has no place.
    """
    if len(channels) != len(strides) or len(scales) != len(embed_dims):
        raise ValueError(
            f'occ_head.channels {tuple(channels)} and strides {tuple(strides)} must have one entry per block, scales '
            f'{tuple(scales)} and embed_dims {tuple(embed_dims)} one per volume'
        )
    if list(out_indices) != sorted(set(out_indices)) or out_indices[-1] != len(channels) - 1:
        raise ValueError(f'occ_head.out_indices must rise up to the last block {len(channels) - 1}, got {tuple(out_indices)}')
    if tuple(map(math.prod, zip(*strides))) != scales[-1]:
        raise ValueError(
            f'occ_head.strides {tuple(strides)} must lead from the coarsest volume, {scales[-1]} voxels per cell, to single '
            'voxels'
        )
    waiting = list(range(len(scales) - 1))
    skips, scale = {}, scales[-1]
    for index, stride in enumerate(strides):
        scale = tuple(n // s for n, s in zip(scale, stride))
        if waiting and index not in out_indices and (scale, channels[index]) == (scales[waiting[-1]], embed_dims[waiting[-1]]):
            skips[index] = waiting.pop()
    if waiting:
        raise ValueError(
            f'no block of occ_head takes the volume with {scales[waiting[-1]]} voxels per cell and {embed_dims[waiting[-1]]} '
            'channels: a block outside out_indices must reach this scale with as many channels'
        )
    return skips
