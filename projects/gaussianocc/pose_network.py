"""Motion of the ego vehicle between two frames, from the images of all its cameras."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from projects.rendering.pose_vectors import motion_matrix

MEAN, STD = 0.45, 0.225


def _repeat_stem(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Fits the first convolution of a network for one image to two: the weights twice, halved, so that sums stay the same."""
    given = state_dict.get(prefix + 'weight')
    if given is not None and 2 * given.shape[1] == module.weight.shape[1]:
        state_dict[prefix + 'weight'] = torch.cat([given, given], 1) / 2


@MODELS.register_module()
class PoseNetwork(BaseModule):
    """One motion for the whole rig: features of every camera's image pair, averaged over the cameras (SurroundDepth).

    Args:
        backbone: Config of a backbone with six input channels, whose last map is used. Weights of a network for one image
            (ImageNet) are loaded into its first convolution twice and halved.
        in_channels: Channels of that map.
        hidden_channels: Channels of the decoder.
        scale: Factor of the six numbers, so that an untrained network predicts next to no motion.
        frozen: No gradient, and batch norms keep the statistics they were trained with.
        batch_statistics: With ``frozen``: batch norms take, and count, the statistics of the images at hand, as the original
            does.
        init_cfg: Initialisation, see mmengine.

    Raises:
        ValueError: If ``batch_statistics`` is set and ``frozen`` is not.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        in_channels: int = 512,
        hidden_channels: int = 256,
        scale: float = 0.01,
        frozen: bool = False,
        batch_statistics: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if batch_statistics and not frozen:
            raise ValueError('pose network: batch_statistics is an option of a frozen network; set frozen=True or leave it out')
        self.backbone = MODELS.build(backbone)
        self.backbone.conv1._register_load_state_dict_pre_hook(_repeat_stem, with_module=True)
        self.net = nn.ModuleList(
            [
                nn.Conv2d(in_channels, hidden_channels, 1),
                nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
                nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
                # the second half belonged to the way back, which nobody uses
                nn.Conv2d(hidden_channels, 12, 1),
            ]
        )
        self.scale = scale
        self.frozen = frozen
        self.batch_statistics = batch_statistics
        if frozen:
            self.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> 'PoseNetwork':
        """Training mode; a frozen network stays in evaluation mode, or only its batch norms train."""
        super().train(mode and not self.frozen)
        if mode and self.frozen and self.batch_statistics:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.train()
        return self

    def forward(self, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        """Motion of the scene from the earlier to the later frame.

        Args:
            earlier: Images (B, N, 3, H, W) of all cameras, RGB, 0..1.
            later: The same of the later frame.

        Returns:
            Axis angle (B, 3), radians, and translation (B, 3), metres, of the matrix that takes points from the ego coordinates
            of the earlier frame to those of the later one.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            batch, cameras = earlier.shape[:2]
            pairs = (torch.cat([earlier, later], 2).flatten(0, 1) - MEAN) / STD
            x = self.backbone(pairs)[-1].unflatten(0, (batch, cameras)).mean(1)
            for layer in self.net[:-1]:
                x = layer(x).relu()
            vector = self.scale * self.net[-1](x).mean((2, 3))
        return vector[:, :3], vector[:, 3:6]

    def motions(self, images: Tensor, frames: Sequence[int]) -> Tensor:
        """Motions from the key frame to all frames.

        Args:
            images: (B, F, N, 3, H, W), RGB, 0..1, one set per entry of ``frames``.
            frames: Times relative to the key frame, which must be among them as 0.

        Returns:
            (B, F, 4, 4), points in ego coordinates of the key frame -> of each frame; the identity for the key frame.

        Raises:
            ValueError: If there is no key frame.
        """
        frames = [int(frame) for frame in frames]
        if 0 not in frames:
            raise ValueError(f'the key frame must be among the frames as 0, got {frames}')
        key = images[:, frames.index(0)]
        matrices = []
        for i, frame in enumerate(frames):
            if frame == 0:
                matrices.append(torch.eye(4, dtype=key.dtype, device=key.device).expand(len(key), 4, 4))
                continue
            pair = (images[:, i], key) if frame < 0 else (key, images[:, i])
            matrices.append(motion_matrix(*(v.float() for v in self(*pair)), invert=frame < 0))
        return torch.stack(matrices, 1)
