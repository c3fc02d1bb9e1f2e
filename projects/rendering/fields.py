"""From the output of a network to the field that renderers look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from projects.occ.structures import OccField, OccPrediction, VoxelGrid, free_background

OPACITY_CURVES = ('compatible', 'continuous')
# a logit this far below the others has a softmax of exactly 0 in float32
ABSENT_LOGIT = -1e4


@dataclass
class DecodedVoxels:
    """What the decoder reads from the features of each voxel; leading dimensions (B, N).

    Attributes:
        colors: (B, N, C), class logits.
        opacities: (B, N), in (0, 1).
        scales: (B, N, 3), metres, 0.01 to 0.64.
        quats: (B, N, 4), unit length.
    """

    colors: Tensor
    opacities: Tensor
    scales: Tensor
    quats: Tensor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64 input, else float32: Gaussians and images are never computed in half precision."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def as_grid(grid: VoxelGrid | Mapping[str, Any], num_classes: int | None) -> tuple[VoxelGrid, int]:
    """Builds the grid and checks the number of classes against its names.

    Raises:
        ValueError: If ``num_classes`` is given and differs from the number of ``grid.class_names``.
    """
    grid = VoxelGrid.build(grid)
    if num_classes is not None and num_classes != grid.num_classes:
        raise ValueError(
            f'num_classes={num_classes}, but grid.class_names lists {grid.num_classes} classes; '
            'set num_classes to None (taken from the grid) or give the grid of the right benchmark'
        )
    return grid, grid.num_classes


def check_shape(logits: Tensor, grid: VoxelGrid) -> None:
    """Checks the shape of full-resolution class logits.

    Raises:
        ValueError: If ``logits`` is not (B, C, X, Y, Z) with the classes and shape of the grid.
    """
    if logits.dim() != 5 or tuple(logits.shape[2:]) != grid.shape:
        raise ValueError(
            f'logits must be (B, C, X, Y, Z) with (X, Y, Z) = grid.shape {grid.shape}, got {tuple(logits.shape)}; '
            'only the full-resolution output of a network can be rendered'
        )
    if logits.shape[1] != grid.num_classes:
        raise ValueError(
            f'logits have {logits.shape[1]} channels, but the grid names {grid.num_classes} classes; '
            'set the number of classes of the head to len(grid.class_names)'
        )


def check_logits(logits: Tensor, grid: VoxelGrid) -> None:
    """Checks shape and finiteness of full-resolution class logits; a GPU is waited for.

    Raises:
        ValueError: If ``logits`` is not (B, C, X, Y, Z) with the classes and shape of the grid, or holds NaN or +inf.
    """
    check_shape(logits, grid)
    # one comparison catches NaN and +inf and lets -inf (a masked class) pass
    if not bool((logits < float('inf')).all()):
        raise ValueError(
            'logits contain NaN or +inf, so nothing can be rendered; '
            'the network has diverged: lower the learning rate, clip gradients or check the input images'
        )


class ClassLogitsField(nn.Module):
    """The field of a network that predicts class logits, the free class among them (GaussRender, arXiv 2502.05040).

    Features are the class probabilities, the background is the free class. With ``feat_channels`` an MLP reads opacity (and, if
    wanted, colour, scale and rotation of a Gaussian) from the voxel features. Without it everything comes from the logits:
    opacity falls with the probability of free space, scales are the renderer's. The defaults are the setting of the published
    runs: fixed centre, fixed isotropic scale, colour = class logits, opacity = learned.

    Parameter names and shapes of the decoder equal those of the original (``mlp_coarse.{0,2,4}.{weight,bias}``). It also has
    three outputs for an offset from the voxel centre, which the method never applies: the means are the voxel centres.

    Args:
        grid: Voxel grid or the dict that describes it.
        num_classes: Number of classes with the free one; None takes it from the grid.
        feat_channels: Channels F of the voxel features that the decoder reads; None builds no decoder.
        num_layer: Hidden layers of the decoder.
        gaussian_scale: Standard deviation of a Gaussian in metres; None is half the shortest voxel edge.
        mask_elements: Drop voxels whose most likely class is the free one.
        transfer_colors: Colours are the logits of the network instead of the decoder's.
        transfer_opacity: Opacity from the probability of free space instead of the decoder's.
        overwrite_scales: Constant isotropic scales instead of the decoder's.
        overwrite_rotations: Identity rotations instead of the decoder's; no difference in images with constant scales.
        overwrite_opacity: Opacity 0 where the most likely class is the free one, else 1; no gradient. Used to compare images.
        opacity_curve: How ``transfer_opacity`` sharpens the free probability p. ``'compatible'`` is the original's
            p' = p^2 below 0.5, else 1 - (1 - p)^2, which jumps from 0.25 to 0.75 at p = 0.5; ``'continuous'`` is 2 p^2 below
            0.5, else 1 - 2 (1 - p)^2. Opacity is 1 - p'.
        with_cp: Recompute the decoder in the backward pass to save memory.

    Raises:
        ValueError: If an argument is out of range or disagrees with the grid.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        num_classes: int | None = None,
        feat_channels: int | None = None,
        num_layer: int = 2,
        gaussian_scale: float | None = None,
        mask_elements: bool = False,
        transfer_colors: bool = True,
        transfer_opacity: bool = False,
        overwrite_scales: bool = True,
        overwrite_rotations: bool = False,
        overwrite_opacity: bool = False,
        opacity_curve: str = 'compatible',
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes = as_grid(grid, num_classes)
        if opacity_curve not in OPACITY_CURVES:
            raise ValueError(f'gaussians.opacity_curve must be one of {OPACITY_CURVES}, got {opacity_curve!r}')
        if gaussian_scale is None:
            gaussian_scale = min(self.grid.voxel_size) / 2
        if not gaussian_scale > 0:
            raise ValueError(f'gaussians.gaussian_scale must be a positive length in metres, got {gaussian_scale}')
        self.gaussian_scale = float(gaussian_scale)
        self.feat_channels = feat_channels
        self.mask_elements = mask_elements
        self.transfer_colors = transfer_colors
        self.transfer_opacity = transfer_opacity
        self.overwrite_scales = overwrite_scales
        self.overwrite_rotations = overwrite_rotations
        self.overwrite_opacity = overwrite_opacity
        self.opacity_curve = opacity_curve
        self.with_cp = with_cp
        self.mlp_coarse = None
        if feat_channels is not None:
            if feat_channels < 1 or num_layer < 1:
                raise ValueError(
                    f'gaussians.feat_channels and gaussians.num_layer must be positive, got {feat_channels} and {num_layer}'
                )
            layers: list[nn.Module] = []
            for _ in range(num_layer):
                layers += [nn.Linear(feat_channels, feat_channels), nn.ReLU(inplace=True)]
            layers.append(nn.Linear(feat_channels, sum(self.output_sizes)))
            self.mlp_coarse = nn.Sequential(*layers)
            for layer in self.mlp_coarse[::2]:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            if transfer_colors and overwrite_scales and (transfer_opacity or overwrite_opacity):
                # nothing that it says is rendered; parameters without gradient stop a distributed training
                self.mlp_coarse.requires_grad_(False)

    @property
    def output_sizes(self) -> tuple[int, int, int, int, int]:
        """Decoder outputs per voxel in order: offset (never applied), colour, opacity, scaling, rotation."""
        return 3, self.num_classes, 1, 3, 4

    def forward(self, prediction: OccPrediction, hard_opacity: bool | None = None) -> OccField:
        """Turns a prediction into a field.

        Args:
            prediction: Full-resolution logits (B, C, X, Y, Z), axes of the reference frame, and the voxel features (B, F, X, Y,
                Z) that the decoder reads. Without a decoder the features are not looked at.
            hard_opacity: Replaces the switch ``overwrite_opacity`` for this call; None keeps it.

        Returns:
            OccField: Float32 (float64 for float64 logits), gradients to logits and features where the switches allow them.

        Raises:
            ValueError: If shapes or channel counts are wrong, or features are missing.
        """
        logits, grid = prediction.logits[-1], self.grid
        check_shape(logits, grid)
        with torch.autocast(device_type=logits.device.type, enabled=False):
            flat, decoded = self._flatten(logits, prediction.voxel_feats)
            scores = flat if self.transfer_colors or decoded is None else decoded.colors
            # of the logits themselves they serve as features and for the opacity: one pass over all voxels instead of two
            shared = flat.softmax(-1) if scores is flat and not self.mask_elements else None
            opacity = self._opacities(flat, scores, decoded, hard_opacity, shared)
            keep = None
            if self.mask_elements:
                keep = flat.argmax(-1) != grid.free_index
                free = F.one_hot(torch.tensor(grid.free_index, device=flat.device), self.num_classes).bool()
                scores = scores.masked_fill(free, ABSENT_LOGIT)
            isotropic = self.overwrite_scales or decoded is None

            def volume(rows: Tensor) -> Tensor:
                return rows.unflatten(1, grid.shape)

            return OccField(
                grid=grid,
                opacity=volume(opacity),
                # (B, N, C) in memory: renderers gather whole rows
                features=volume(scores.softmax(-1) if shared is None else shared).movedim(-1, 1),
                background=free_background(grid, flat.device, flat.dtype),
                scales=None if isotropic else volume(decoded.scales),
                # rotating an isotropic Gaussian only adds rounding, and a gradient of zero that is costly to compute
                quats=None if isotropic or self.overwrite_rotations else volume(decoded.quats),
                keep=None if keep is None else volume(keep),
            )

    def _flatten(self, logits: Tensor, voxel_feats: Tensor | None) -> tuple[Tensor, DecodedVoxels | None]:
        """Logits as (B, N, C) and the decoder's outputs, if there is a decoder."""
        flat = logits.flatten(2).transpose(1, 2).to(compute_dtype(logits))
        if self.mlp_coarse is None:
            return flat, None
        expected = (logits.shape[0], self.feat_channels, *self.grid.shape)
        if voxel_feats is None or tuple(voxel_feats.shape) != expected:
            got = 'None' if voxel_feats is None else tuple(voxel_feats.shape)
            raise ValueError(
                f'voxel_feats must be (B, F, X, Y, Z) = {expected}, got {got}; set gaussians.feat_channels to the channels '
                'of the voxel features of the network, or to None to take the opacity from the logits'
            )
        return flat, self._decode(voxel_feats, flat.dtype)

    def _decode(self, voxel_feats: Tensor, dtype: torch.dtype) -> DecodedVoxels:
        feats = voxel_feats.flatten(2).transpose(1, 2).to(self.mlp_coarse[0].weight.dtype)
        if self.with_cp and torch.is_grad_enabled():
            raw = checkpoint(self.mlp_coarse, feats, use_reentrant=False)
        else:
            raw = self.mlp_coarse(feats)
        _, colors, opacity, scaling, rotation = raw.to(dtype).split(self.output_sizes, dim=-1)
        return DecodedVoxels(
            colors=colors,
            opacities=torch.sigmoid(opacity.squeeze(-1) - 1),
            scales=0.63 * torch.sigmoid(scaling - 1) + 0.01,
            quats=F.normalize(rotation, dim=-1, eps=1e-12),
        )

    def _opacities(
        self,
        flat: Tensor,
        features: Tensor,
        decoded: DecodedVoxels | None,
        hard_opacity: bool | None,
        probabilities: Tensor | None,
    ) -> Tensor:
        if self.overwrite_opacity if hard_opacity is None else hard_opacity:
            return (features.argmax(-1) != self.grid.free_index).to(flat.dtype)
        if decoded is not None and not self.transfer_opacity:
            return decoded.opacities
        free = (flat.softmax(-1) if probabilities is None else probabilities)[..., self.grid.free_index]
        factor = 1.0 if self.opacity_curve == 'compatible' else 2.0
        return torch.where(free < 0.5, 1 - factor * free.square(), factor * (1 - free).square())
