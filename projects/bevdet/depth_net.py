"""Networks that predict depth and context of every cell of a feature map."""

import torch
from mmdet.models.backbones.resnet import BasicBlock
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, kaiming_init
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from projects.occ.models.layers import recompute

from .geometry import CAMERA_VECTOR

DILATIONS = (6, 12, 18)


@MODELS.register_module()
class LSSDepthNet(BaseModule):
    """Depth and context from one convolution (Lift, Splat, Shoot).

    Args:
        in_channels: Channels of the image features.
        num_bins: Depth bins D.
        context_channels: Channels C of the lifted features.
        init_cfg: Initialisation, see mmengine.
    """

    stereo = False

    def __init__(self, in_channels: int, num_bins: int, context_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.num_bins = num_bins
        self.conv = nn.Conv2d(in_channels, num_bins + context_channels, kernel_size=1)

    def forward(self, feats: Tensor, vector: Tensor, cost: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predicts; only ``feats`` (M, C_in, h, w) matters.

        Returns:
            Depth logits (M, D, h, w) and context (M, C, h, w).
        """
        scores = self.conv(feats)
        return scores[:, : self.num_bins], scores[:, self.num_bins :]


class CameraGate(nn.Module):
    """Scales the channels of a feature map by factors between 0 and 1 that depend on the camera.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(CAMERA_VECTOR, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.gate = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, feats: Tensor, vector: Tensor) -> Tensor:
        """Maps (M, channels, h, w) of cameras with vectors (M, 27)."""
        return feats * self.gate(self.mlp(vector)[:, :, None, None])


@MODELS.register_module()
class CameraAwareDepthNet(BaseModule):
    """Depth and context from image features, a vector that describes the camera and a stereo cost volume.

    `BEVDepth <https://arxiv.org/abs/2206.10092>`_ and `BEVStereo <https://arxiv.org/abs/2209.10248>`_, without deformable
    convolution.

    Args:
        in_channels: Channels m of the image features.
        num_bins: Depth bins D.
        context_channels: Channels C of the lifted features.
        aspp_channels: Channels of each branch of the atrous spatial pyramid.
        stereo: Take a cost volume, whose resolution is four times that of the features.
        with_cp: Recompute the residual blocks and the pyramid in the backward pass: less memory, more time, same numbers.
        init_cfg: Extra initialisation, applied last.
    """

    def __init__(
        self,
        in_channels: int,
        num_bins: int,
        context_channels: int,
        aspp_channels: int = 96,
        stereo: bool = True,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_bins, self.stereo, self.with_cp = num_bins, stereo, with_cp
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)
        )
        self.vector_norm = nn.BatchNorm1d(CAMERA_VECTOR)
        self.context_gate = CameraGate(in_channels)
        self.context_conv = nn.Conv2d(in_channels, context_channels, kernel_size=1)
        self.depth_gate = CameraGate(in_channels)
        if stereo:
            self.cost_convs = nn.Sequential(
                nn.Conv2d(num_bins, num_bins, 3, stride=2, padding=1),
                nn.BatchNorm2d(num_bins),
                nn.Conv2d(num_bins, num_bins, 3, stride=2, padding=1),
                nn.BatchNorm2d(num_bins),
            )
        width = in_channels + num_bins if stereo else in_channels
        shortcut = nn.Conv2d(width, in_channels, kernel_size=1) if stereo else None
        self.blocks = nn.Sequential(
            BasicBlock(width, in_channels, downsample=shortcut),
            BasicBlock(in_channels, in_channels),
            BasicBlock(in_channels, in_channels),
        )
        self.aspp = ASPP(in_channels, DILATIONS, aspp_channels)
        self.aspp.project = nn.Sequential(
            nn.Conv2d((2 + len(DILATIONS)) * aspp_channels, in_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        self.depth_conv = nn.Conv2d(in_channels, num_bins, kernel_size=1)

    def init_weights(self) -> None:
        """Kaiming-normal kernels in the pyramid; the defaults of PyTorch elsewhere."""
        super().init_weights()
        for module in self.aspp.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module, mode='fan_in')

    def _depth_features(self, feats: Tensor) -> Tensor:
        return self.aspp(self.blocks(feats))

    def forward(self, feats: Tensor, vector: Tensor, cost: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predicts.

        Args:
            feats: (M, m, h, w), image features of M cameras.
            vector: (M, 27), see :func:`~projects.bevdet.geometry.camera_vector`.
            cost: (M, D, 4h, 4w), probabilities of the cost volume; needed with ``stereo``.

        Returns:
            Depth logits (M, D, h, w) and context (M, C, h, w).

        Raises:
            ValueError: If a single camera is to be trained, whose batch norms would have one value per channel.
        """
        if self.training and len(feats) < 2:
            raise ValueError(
                'the depth network normalises one vector per camera over the batch and needs at least two of them in training, '
                'got one; use more cameras or a larger batch_size'
            )
        feats = self.reduce_conv(feats)
        vector = self.vector_norm(vector)
        context = self.context_conv(self.context_gate(feats, vector))
        feats = self.depth_gate(feats, vector)
        if self.stereo:
            feats = torch.cat((feats, self.cost_convs(cost)), dim=1)
        feats = recompute(self, feats, function=self._depth_features) if self.with_cp else self._depth_features(feats)
        return self.depth_conv(feats), context
