"""A small voxel network in plain PyTorch; it stands for yours."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projects.occ.structures import OccBatch, VoxelGrid


class ProjectAndAverage(nn.Module):
    """Images to voxels: features at the pixel of a voxel's centre, averaged over the cameras that see it."""

    def __init__(self, grid: VoxelGrid | dict) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        centers = F.pad(self.grid.centers().flatten(0, 2), (0, 1), value=1.0)
        self.register_buffer('centers', centers, persistent=False)  # (V, 4), metres

    def forward(self, img_feats: list[Tensor], batch: OccBatch) -> Tensor:
        """Feature maps (B, N, F, h, w) and the batch with its cameras -> (B, F, X, Y, Z)."""
        feats = img_feats[0]
        points = torch.einsum('bnij,vj->bnvi', batch.cameras.ref2img, self.centers)  # u*d, v*d, d, 1
        depth = points[..., 2]
        pixels = points[..., :2] / depth.clamp(min=0.1)[..., None]
        place = 2 * pixels / pixels.new_tensor(batch.input_wh) - 1
        seen = (depth > 0.1) & (place.abs() < 1).all(-1)  # (B, N, V)
        sampled = F.grid_sample(feats.flatten(0, 1), place.flatten(0, 1)[:, None].to(feats.dtype), align_corners=False)
        sampled = sampled.squeeze(2).unflatten(0, feats.shape[:2]) * seen[:, :, None]
        volume = sampled.sum(1) / seen.sum(1).clamp(min=1)[:, None]
        return volume.unflatten(2, self.grid.shape)


class VoxelClassifier(nn.Module):
    """Features (B, F, X, Y, Z) -> class logits (B, C, X, Y, Z) and voxel features (B, channels, X, Y, Z)."""

    def __init__(self, grid: VoxelGrid | dict, in_channels: int, channels: int) -> None:
        super().__init__()
        grid = VoxelGrid.build(grid)
        self.position = nn.Parameter(torch.zeros(in_channels, *grid.shape))
        layers = [nn.Conv3d(n, channels, 3, padding=1) for n in (in_channels, channels)]
        self.body = nn.Sequential(layers[0], nn.BatchNorm3d(channels), nn.ReLU(), layers[1], nn.ReLU())
        self.classifier = nn.Conv3d(channels, grid.num_classes, 1)

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        feats = self.body(volume + self.position)
        return self.classifier(feats), feats
