"""Cameras as users of the plain module write them down."""

import torch
from torch import Tensor

from projects.occ.structures import Cameras


class CameraBatch(Cameras):
    """:class:`Cameras` of one image size, checked when they are made.

    Args:
        ref2cam: (B, N, 4, 4), reference frame of the grid -> camera (x right, y down, z forward), metres, acting on columns.
        K: (B, N, 3, 3), intrinsics in pixels, pixel centres at +0.5.
        width: Image width, pixels.
        height: Image height, pixels.

    Raises:
        ValueError: If shapes disagree, numbers are not finite, a focal length is not positive or K has skew.
    """

    def __init__(self, ref2cam: Tensor, K: Tensor, width: int, height: int) -> None:
        if any(int(n) != n or n < 1 for n in (width, height)):
            raise ValueError(f'width and height must be positive numbers of pixels, got {(width, height)}')
        if ref2cam.dim() != 4 or ref2cam.shape[1] < 1:
            raise ValueError(f'ref2cam must be (B, N, 4, 4) with N >= 1, got {tuple(ref2cam.shape)}')
        sizes = torch.tensor([int(width), int(height)]).expand(*ref2cam.shape[:2], 2)
        super().__init__(ref2cam, K, sizes)
        self.checked()
