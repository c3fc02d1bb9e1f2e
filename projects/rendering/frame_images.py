"""Images of all frames of a batch at a size of one's own, and the motion of the cameras between them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.occ.structures import OccBatch

from .pose_vectors import camera_motion


def frame_images(batch: OccBatch, frame: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images as they are on disk, resized, and their intrinsics.

    Args:
        batch: With ``originals``.
        frame: Which frame, 0 for the key frame.
        size: (H, W).

    Returns:
        (B, V, 3, H, W), RGB, 0..1, and (B, V, 3, 3), pixels.
    """
    views = batch.at(frame)
    device = views.cameras.K.device
    rows = [torch.stack([_shrink(image.to(device).float() / 255, size) for image in images]) for images in views.originals]
    scale = torch.tensor([size[1], size[0]]) / views.cameras.sizes.double()
    K = views.cameras.K.clone()
    K[..., :2, :] *= scale.to(K).unsqueeze(-1)
    return torch.stack(rows), K


def _shrink(image: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(image[None], tuple(size), mode='bilinear', align_corners=False, antialias=True)[0]


def frame_motions(batch: OccBatch, frames: Sequence[int], poses: nn.Module | None, size: Sequence[int]) -> list[Tensor]:
    """Motions of every camera from the key frame to other frames.

    Args:
        batch: With cameras and, for ``poses``, ``originals`` of these frames.
        frames: Offsets of the other frames.
        poses: Module with ``motions(images (B, F, V, 3, H, W), frames) -> (B, F, 4, 4)``; None: the poses of the data set.
        size: (H, W) of the images that ``poses`` sees.

    Returns:
        One (B, V, 4, 4) per frame, points of the camera at the key frame -> at the other frame; gradients reach ``poses``.
    """
    key = batch.cameras.at(0).ref2cam
    if poses is None:
        back = torch.linalg.inv(key)
        return [batch.cameras.at(frame).ref2cam @ back for frame in frames]
    images = torch.stack([frame_images(batch, frame, size)[0] for frame in (0, *frames)], 1)
    ego = poses.motions(images, (0, *frames))
    return [camera_motion(ego[:, i + 1, None], key) for i in range(len(frames))]


def stacked_maps(maps: Sequence[Sequence[Tensor]], size: Sequence[int], device: torch.device) -> Tensor:
    """(B, V, h, w), maps (h0, w0) resized to the nearest pixel: row ``floor(i h0 / h)``."""
    return torch.stack([torch.stack([_nearest(part.to(device), size) for part in row]) for row in maps])


def _nearest(values: Tensor, size: Sequence[int]) -> Tensor:
    rows, columns = (torch.arange(n, device=values.device) * old // n for n, old in zip(size, values.shape))
    return values[rows[:, None], columns]
