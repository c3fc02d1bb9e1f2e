"""Reference points of the voxel frame seen by the cameras."""

from collections.abc import Sequence

import torch
from torch import Tensor

MIN_DEPTH = 1e-5


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
