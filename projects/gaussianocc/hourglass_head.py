"""From lifted features to class logits of every voxel."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.models.base_occ_head import BaseOccHead
from projects.occ.structures import ContractedGrid, OccPrediction, VoxelGrid

from .hourglass_network import HourglassNetwork


@MODELS.register_module()
class HourglassOccHead(BaseOccHead):
    """Three stacked hourglasses of 3D convolutions over the lifted volume.

    The logit of the free class is trained by rendering as the opposite of opacity, so there is no density head.

    Args:
        grid: The voxel grid.
        contraction: ``ContractedGrid`` that the volume lies on, the same as in the view encoder; the voxels of ``grid`` are
            looked up in it then. None: the volume lies on ``grid``.
        in_dims: Channels F of the lifted features.
        channels: Channels of the network.
        with_cp: Recompute the network in the backward pass: less memory, more time, same numbers.
        **kwargs: ``loss_occ`` and ``init_cfg`` of the base class.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        contraction: ContractedGrid | Mapping[str, Any] | None = None,
        in_dims: int = 64,
        channels: int = 32,
        with_cp: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(grid=grid, **kwargs)
        self.contraction = None if contraction is None else ContractedGrid.build(contraction)
        self.shape = self.grid.shape if self.contraction is None else self.contraction.shape
        self.network = HourglassNetwork(in_dims, channels, self.grid.num_classes, with_cp)

    def forward(self, scene: Tensor) -> OccPrediction:
        """Classifies.

        Args:
            scene: Lifted features (B, F, X', Y', Z') on the contraction, or on the grid without one.

        Returns:
            Logits (B, K, X, Y, Z) at the centres of the grid's voxels and, with a contraction, ``contracted_logits``
            (B, K, X', Y', Z').

        Raises:
            ValueError: If the volume has another shape.
        """
        if tuple(scene.shape[2:]) != self.shape:
            raise ValueError(
                f'the lifted volume must have the shape {self.shape}, got {tuple(scene.shape[2:])}; model.view_encoder and '
                'model.occ_head must have the same contraction'
            )
        volume = self.network(scene)
        if self.contraction is None:
            return OccPrediction(logits=[volume])
        with torch.autocast(volume.device.type, enabled=False):
            centers = self.grid.centers(volume.device)
            logits = self.contraction.sample(volume.float(), centers)
        return OccPrediction(logits=[logits], contracted_logits=volume)
