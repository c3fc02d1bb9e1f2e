"""The network of voxel_network.py under names that configs can use."""

from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.models import BaseOccHead
from projects.occ.structures import OccPrediction

from .voxel_network import ProjectAndAverage, VoxelClassifier

MODELS.register_module(module=ProjectAndAverage)


@MODELS.register_module()
class VoxelNetworkHead(BaseOccHead):
    """Classifies voxels; the voxel loss is that of the base class."""

    def __init__(self, grid: dict, in_channels: int, channels: int, **kwargs) -> None:
        super().__init__(grid=grid, **kwargs)
        self.network = VoxelClassifier(self.grid, in_channels, channels)

    def forward(self, scene: Tensor) -> OccPrediction:
        logits, feats = self.network(scene)
        return OccPrediction(logits=[logits], voxel_feats=feats)
