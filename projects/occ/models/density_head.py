"""Heads that predict a density and the classes of occupied space apart, for supervision by rendering along rays."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.structures import OccPrediction, VoxelGrid
from projects.occ.structures.density import joint_log_probabilities

from .base_occ_head import BaseOccHead

RULES = ('threshold', 'free_score', 'argmax')


def softplus_mlp(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two linear layers over the last axis with twice ``in_channels`` hidden units and softplus between them."""
    return nn.Sequential(nn.Linear(in_channels, 2 * in_channels), nn.Softplus(), nn.Linear(2 * in_channels, out_channels))


class DensityBranches:
    """What heads of density and classes share: two small networks on voxel features, and what they decide. A mixin.

    `RenderOcc: Vision-Centric 3D Occupancy Prediction with 2D Rendering Supervision <https://arxiv.org/abs/2309.09502>`_. The
    logits of a prediction hold the scores of the occupied classes and, in the channel of the free class, the free score that
    only a 3D loss trains; they are no joint distribution. What is occupied says the density. With ``joint`` they are the
    logarithms of one distribution instead, whose free class follows from the density, as in `UniOcc
    <https://arxiv.org/abs/2306.09117>`_: any voxel loss trains it.

    Args:
        grid: The voxel grid.
        channels: Channels F of the voxel features.
        final_softplus: Keep density and free score at or above 0.
        threshold: Density above which a voxel is occupied (8.5 as published); found on a validation set. None: not known yet,
            predictions by ``'threshold'`` are refused.
        joint: Logits are one distribution.
        rule: What is occupied. ``'threshold'``: the density exceeds ``threshold``; ``'free_score'``: it exceeds the free score;
            ``'argmax'``: the most likely class of the joint distribution. None: ``'argmax'`` if joint, else ``'threshold'``.

    Raises:
        ValueError: If the rule is unknown or does not fit ``joint``.
    """

    grid: VoxelGrid

    def build_branches(
        self,
        channels: int,
        final_softplus: bool = True,
        threshold: float | None = 8.5,
        joint: bool = False,
        rule: str | None = None,
    ) -> None:
        """Makes the two networks; called once, behind the constructor of the head."""
        rule = rule or ('argmax' if joint else 'threshold')
        if rule not in RULES or rule == ('free_score' if joint else 'argmax'):
            raise ValueError(
                f"occ_head.rule must be 'threshold', or 'argmax' with joint=True and 'free_score' without, got {rule!r} and "
                f'joint={joint}'
            )
        self.threshold, self.joint, self.rule = threshold, joint, rule
        self.density_mlp = softplus_mlp(channels, 2)
        if final_softplus:
            self.density_mlp.append(nn.Softplus())
        self.semantic_mlp = softplus_mlp(channels, self.grid.num_classes - 1)

    def outputs(self, feats: Tensor) -> dict[str, Any]:
        """Logits (B, K, X, Y, Z) and raw density (B, X, Y, Z) from voxel features (B, X, Y, Z, F)."""
        density, free = self.density_mlp(feats).unbind(-1)
        classes = self.semantic_mlp(feats).movedim(-1, 1)
        before = self.grid.free_index
        if self.joint:
            with torch.autocast(feats.device.type, enabled=False):
                wide = torch.float64 if density.dtype == torch.float64 else torch.float32
                logits = joint_log_probabilities(density.to(wide), classes.to(wide), before)
        else:
            logits = torch.cat((classes[:, :before], free.unsqueeze(1), classes[:, before:]), dim=1)
        return dict(logits=[logits], density=density)

    def average(self, predictions: Iterable[OccPrediction]) -> OccPrediction:
        """Mean density and mean class probabilities; where logits are no joint distribution, the mean free score stays one."""
        free = self.grid.free_index
        density, scores, kept = [], [], []
        for prediction in predictions:
            density.append(prediction.density)
            scores.append(prediction.logits[-1][:, free])
            # without the free score the others are the distribution of occupied space
            logits = prediction.logits[-1]
            apart = logits if self.joint else logits.index_fill(1, torch.tensor([free], device=logits.device), -torch.inf)
            kept.append(OccPrediction(logits=[apart]))
        logits = super().average(kept).logits[-1]
        if not self.joint:
            logits[:, free] = torch.stack(scores).float().mean(0)
        return OccPrediction(logits=[logits], density=torch.stack(density).mean(0))

    def classify(self, prediction: OccPrediction) -> Tensor:
        """Class ids (B, X, Y, Z) int64: the best occupied class where ``rule`` says occupied, free elsewhere.

        Raises:
            ValueError: If the threshold is needed and not known.
        """
        logits, density, free = prediction.logits[-1], prediction.density, self.grid.free_index
        if self.rule == 'argmax':
            return logits.argmax(1)
        if self.rule == 'threshold' and self.threshold is None:
            raise ValueError(
                'occ_head.threshold is None: which density is occupied? Find it with tools/calibrate_threshold.py, or set the '
                'published 8.5'
            )
        occupied = torch.tensor(self.grid.semantic_classes, device=density.device)
        best = occupied[logits[:, occupied].argmax(1)]
        return torch.where(density > (self.threshold if self.rule == 'threshold' else logits[:, free]), best, free)


@MODELS.register_module()
class DensityHead(DensityBranches, BaseOccHead):
    """Density and classes from the voxel features of any head.

    Args:
        grid: The voxel grid.
        host: Config of the head whose ``voxel_feats`` are read, without losses.
        channels: Channels F of these features.
        unused: Children of the host that make nothing but logits; they are frozen, because parameters without gradient stop a
            distributed training.
        loss_occ: Voxel loss, or None, see :class:`BaseOccHead`.
        **branches: See :class:`DensityBranches`.

    Raises:
        ValueError: If the host has no such child.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        host: Mapping[str, Any],
        channels: int,
        unused: Sequence[str] = ('classifier',),
        loss_occ: Mapping[str, Any] | None = None,
        **branches: Any,
    ) -> None:
        super().__init__(grid=grid, loss_occ=loss_occ)
        self.build_branches(channels, **branches)
        self.host = MODELS.build(dict(host, loss_occ=None), default_args=dict(grid=self.grid))
        for name in unused:
            if not isinstance(getattr(self.host, name, None), nn.Module):
                children = [child for child, _ in self.host.named_children()]
                raise ValueError(f'occ_head.unused: {type(self.host).__name__} has no part {name!r}, only {children}')
            getattr(self.host, name).requires_grad_(False)

    def forward(self, scene: Any) -> OccPrediction:
        """What the host's head reads -> logits (B, K, X, Y, Z), density (B, X, Y, Z) and the host's voxel features.

        Raises:
            ValueError: If the host's head gives no voxel features.
        """
        feats = self.host(scene).voxel_feats
        if feats is None:
            raise ValueError(f'{type(self.host).__name__} gives no voxel features, from which DensityHead reads the density')
        return OccPrediction(voxel_feats=feats, **self.outputs(feats.movedim(1, -1)))
