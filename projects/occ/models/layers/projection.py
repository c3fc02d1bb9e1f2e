"""Reference points of the voxel frame seen by the cameras."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MIN_DEPTH = 1e-5


def check_cameras(cameras: Mapping[str, Any], batch_size: int, num_cams: int) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Checks the camera part of a network's input and unpacks it.

    Args:
        cameras: ``ref2img`` (B, N, 4, 4), reference frame (metres) -> (u*d, v*d, d, 1) with u, v in pixels of the network
            image; ``img_wh`` (B, N, 2), width and height of every image before padding, pixels; ``input_wh`` (W, H) of the
            padded network image, pixels.
        batch_size: B, taken from the image features.
        num_cams: N that the network was built for.

    Returns:
        ``ref2img`` and ``img_wh`` as float32 and ``input_wh`` as two floats.

    Raises:
        ValueError: If a key is missing, or a shape fits neither the features nor ``num_cams``.
    """
    missing = [key for key in ('ref2img', 'img_wh', 'input_wh') if key not in cameras]
    if missing:
        raise ValueError(f'cameras must hold ref2img, img_wh and input_wh, but {missing} is missing; got {sorted(cameras)}')
    ref2img, img_wh = cameras['ref2img'].float(), cameras['img_wh'].float()
    if ref2img.shape != (batch_size, num_cams, 4, 4):
        raise ValueError(
            f'cameras.ref2img must be (B, N, 4, 4) = {(batch_size, num_cams, 4, 4)}, got {tuple(ref2img.shape)}; '
            'N must equal model.view_encoder.num_cams, and B the batch size of the images'
        )
    if img_wh.shape != (batch_size, num_cams, 2):
        raise ValueError(f'cameras.img_wh must be (B, N, 2) = {(batch_size, num_cams, 2)}, got {tuple(img_wh.shape)}')
    width, height = cameras['input_wh']
    return ref2img, img_wh, (float(width), float(height))


def project_points(
    points: Tensor, ref2img: Tensor, img_wh: Tensor, input_wh: Sequence[float] | None = None, min_depth: float = MIN_DEPTH
) -> tuple[Tensor, Tensor]:
    """Projects points into every camera of every sample, in float32 whatever the autocast state.

    Points at or behind the camera plane keep a huge, meaningless position (their depth is clamped to ``min_depth``); only
    ``visible`` says which positions mean something.

    Args:
        points: (..., 3), metres, reference frame, the same for all samples.
        ref2img: (B, N, 4, 4), reference frame -> (u*d, v*d, d, 1) with u, v in pixels of the network image.
        img_wh: (B, N, 2), width and height of each image before padding, pixels: a point is visible inside this rectangle.
        input_wh: (W, H) of the padded network image, pixels, which normalises the positions (the feature maps cover this
            rectangle); None means ``img_wh``.
        min_depth: Metres; visible points lie farther away than this.

    Returns:
        Positions (B, N, ..., 2), x before y, in [0, 1] inside the padded image; visibility (B, N, ...) bool.
    """
    shape = points.shape[:-1]
    x, y, z = points.float().reshape(1, 1, -1, 3).unbind(-1)
    # Written out instead of a matrix product: neither autocast nor TF32 may round metres here.
    rows = ref2img.float()[:, :, :3, None, :]
    u, v, depth = (
        rows[:, :, i, :, 0] * x + rows[:, :, i, :, 1] * y + rows[:, :, i, :, 2] * z + rows[:, :, i, :, 3] for i in range(3)
    )
    pixels = torch.stack((u, v), dim=-1) / depth.clamp(min=min_depth).unsqueeze(-1)
    inside = pixels / img_wh.float()[:, :, None, :]
    visible = (depth > min_depth) & ((inside > 0) & (inside < 1)).all(-1)
    positions = inside if input_wh is None else pixels / pixels.new_tensor([float(s) for s in input_wh])
    return positions.reshape(*ref2img.shape[:2], *shape, 2), visible.reshape(*ref2img.shape[:2], *shape)
