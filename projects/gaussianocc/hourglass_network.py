"""The 3D network: a stem, three hourglasses that hand features on, and a classifier."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from projects.occ.models.layers import recompute


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3x3 convolution and batch norm."""
    conv = nn.Conv3d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels))


def _deconv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Transposed 3x3x3 convolution to twice the size, and batch norm."""
    conv = nn.ConvTranspose3d(in_channels, out_channels, 3, 2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels))


def _conv_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(in_channels, out_channels, stride), nn.ReLU())


class Hourglass(nn.Module):
    """Halves the volume twice and doubles it twice.

    Args:
        channels: Channels C of input and output; inside there are twice as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv1 = _conv_relu(channels, wide, 2)
        self.conv2 = _conv(wide, wide)
        self.conv3 = _conv_relu(wide, wide, 2)
        self.conv4 = _conv_relu(wide, wide)
        self.conv5 = _deconv(wide, wide)
        self.conv6 = _deconv(wide, channels)

    def forward(self, x: Tensor, skip_up: Tensor | None, skip_down: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Runs one hourglass.

        Args:
            x: (B, C, X, Y, Z), every size a multiple of 4.
            skip_up: (B, 2C, X/2, Y/2, Z/2), added on the way up; None: this hourglass's own features on the way down.
            skip_down: The same shape, added on the way down, or None.

        Returns:
            The output (B, C, X, Y, Z) and the features at half size on the way down and up, (B, 2C, X/2, Y/2, Z/2).
        """
        down = self.conv2(self.conv1(x))
        down = F.relu(down if skip_down is None else down + skip_down)
        up = F.relu(self.conv5(self.conv4(self.conv3(down))) + (down if skip_up is None else skip_up))
        return self.conv6(up), down, up


class HourglassNetwork(nn.Module):
    """Voxel features to class logits.

    The last convolution has a batch norm too: in training every logit has zero mean over the volume at first, so that
    untrained voxels are half opaque.

    Args:
        in_channels: Channels of the lifted volume.
        channels: Channels C of the network.
        num_classes: Logits K.
        with_cp: Recompute stem, hourglasses and classifier in the backward pass: less memory, more time, same numbers.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.dres0 = nn.Sequential(_conv(in_channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU())
        self.dres1 = nn.Sequential(_conv(channels, channels), nn.ReLU(), _conv(channels, channels))
        self.dres2 = Hourglass(channels)
        self.dres3 = Hourglass(channels)
        self.dres4 = Hourglass(channels)
        hidden = [layer for _ in range(4) for layer in _conv_relu(channels, channels)]
        self.classif_semantic = nn.Sequential(*hidden, _conv(channels, num_classes))
        self._init_convolutions()

    def _init_convolutions(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / (27 * module.out_channels)))

    def _run(self, module: nn.Module, *args: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        return recompute(module, *args) if self.with_cp else module(*args)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies.

        Args:
            x: (B, F, X, Y, Z).

        Returns:
            Logits (B, K, X, Y, Z).

        Raises:
            ValueError: If a size is no multiple of 4.
        """
        if any(size % 4 for size in x.shape[2:]):
            raise ValueError(
                f'the hourglass network needs volumes whose three sizes are multiples of 4, got {tuple(x.shape[2:])}'
            )
        stem = self._run(self.dres0, x)
        stem = self._run(self.dres1, stem) + stem
        first, down, up = self._run(self.dres2, stem, None, None)
        second, _, up = self._run(self.dres3, first + stem, down, up)
        # The third takes the first one's features on the way up, and nothing is added to its output.
        third, _, _ = self._run(self.dres4, second + stem, down, up)
        return self._run(self.classif_semantic, third)
