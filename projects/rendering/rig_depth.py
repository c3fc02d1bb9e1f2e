"""Losses by which a rig of cameras learns metric depth and its own motion from images alone (first stage of GaussianOcc)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .cross_view import cross_view_loss, erode, overlap_masks, ring_pairs
from .photometric import MASK_MODES, SSIM_WINDOW, Neighbour, masked_mean, reprojection_error, smoothness

_CACHED_RIGS = 64


class RigDepthLoss(nn.Module):
    """Neighbours in time give depth and motion up to scale, neighbours in the rig give the scale.

    Args:
        photometric_weight: Of the comparison with neighbouring frames.
        smooth_weight: Of smooth inverse depth.
        cross_view_weight: Of the comparison between cameras; 0 leaves it out, as in the refinement with fixed poses.
        warmup_steps: Training steps over which the last weight grows from 0, because untrained motions are next to nothing.
        near: First depth at which overlaps of cameras are looked for, metres.
        far: Last such depth, metres: 80 on nuScenes, 200 on DDAD.
        samples: Number of depths in between.
        need: Number of them at which the other camera must see the place.
        erosion: Edge of the square by which overlaps are eroded before images are compared, odd, pixels.
        scale: Standard deviation of the pixels' Gaussians, metres.
        pairs: Ordered pairs (target, source) of cameras; None: each with both neighbours in the order of the data set, which
            has to go around the vehicle.
        literal: See :func:`cross_view_loss`.
        automask: Whether the neighbours as they are compete with the warped ones. A network that starts from nothing may then
            turn the rig, so that one side fits, and leave the other side to the neighbours as they are; False prevents that.
        mask_mode: See :func:`smallest_error`.
        half_pixel: See :func:`warp_image`.
        visible_only: See :func:`reprojection_error`.
        backend: Of the rasteriser.

    Raises:
        ValueError: If a weight is negative or an option unknown.
    """

    def __init__(
        self,
        photometric_weight: float = 1.0,
        smooth_weight: float = 1e-3,
        cross_view_weight: float = 1.0,
        warmup_steps: int = 500,
        near: float = 0.1,
        far: float = 80.0,
        samples: int = 64,
        need: int = 2,
        erosion: int = 5,
        scale: float = 0.02,
        pairs: Sequence[Sequence[int]] | None = None,
        literal: bool = False,
        automask: bool = True,
        mask_mode: str = 'exclude',
        half_pixel: bool = True,
        visible_only: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        weights = (photometric_weight, smooth_weight, cross_view_weight)
        if min(weights) < 0 or not any(weights) or warmup_steps < 0:
            raise ValueError(
                'RigDepthLoss: weights and warmup_steps must not be negative, and one weight must be above 0; got '
                f'{weights} and {warmup_steps}'
            )
        if mask_mode not in MASK_MODES:
            raise ValueError(f'RigDepthLoss.mask_mode must be one of {MASK_MODES}, got {mask_mode!r}')
        self.photometric_weight, self.smooth_weight, self.cross_view_weight = weights
        self.warmup_steps = warmup_steps
        self.overlap = dict(near=near, far=far, samples=samples, need=need)
        self.erosion, self.scale, self.literal = erosion, scale, literal
        self.pairs = None if pairs is None else [(int(target), int(source)) for target, source in pairs]
        self.warp = dict(automask=automask, mask_mode=mask_mode, half_pixel=half_pixel, visible_only=visible_only)
        self.backend = backend
        self.step = 0
        self._rigs: dict[tuple, tuple[Tensor, Tensor]] = {}

    def get_extra_state(self) -> dict[str, int]:
        """Number of training steps so far."""
        return dict(step=self.step)

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Continues to count where a checkpoint stopped."""
        self.step = int(state['step'])

    def rig_masks(self, K: Tensor, cam2ref: Tensor, size: Sequence[int]) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
        """Pairs of cameras and their overlaps, whole and eroded, (P, H, W) bool; computed once for every calibration.

        Args:
            K: (N, 3, 3), at this size, pixels.
            cam2ref: (N, 4, 4), mounting of the cameras.
            size: (H, W).
        """
        pairs = ring_pairs(len(K)) if self.pairs is None else self.pairs
        key = (tuple(size), K.device, K.detach().cpu().numpy().tobytes(), cam2ref.detach().cpu().numpy().tobytes())
        if key not in self._rigs:
            overlap = overlap_masks(K.double(), cam2ref.double(), size, pairs, **self.overlap)
            if len(self._rigs) >= _CACHED_RIGS:
                self._rigs.pop(next(iter(self._rigs)))
            self._rigs[key] = overlap, erode(overlap, self.erosion)
        return pairs, *self._rigs[key]

    def forward(
        self,
        depth: Tensor,
        image: Tensor,
        K: Tensor,
        cam2ref: Tensor,
        neighbours: Sequence[Neighbour],
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one training step.

        Args:
            depth: (B, N, 1, H, W), metres along the optical axes.
            image: (B, N, 3, H, W), 0..1, of the key frame.
            K: (B, N, 3, 3), at this size, pixels.
            cam2ref: (B, N, 4, 4), mounting of the cameras, camera -> vehicle.
            neighbours: Other frames; their tensors are (B, N, ...).
            mask: (B, N, 1, H, W), 0 on the own car; None: nowhere.

        Returns:
            ``loss_photometric``, ``loss_smooth`` and ``loss_cross_view``, weighted, without dimensions; those whose weight is 0
            are left out.
        """
        losses = {}
        flat_depth, flat_image = depth.flatten(0, 1), image.flatten(0, 1)
        if self.photometric_weight:
            flat = [Neighbour(*(part.flatten(0, 1) for part in neighbour)) for neighbour in neighbours]
            # windows that touch the car, which stands still in the image, would pull what is beside it to infinity
            use = None if mask is None else erode(mask.flatten(0, 1).squeeze(1) > 0, SSIM_WINDOW).unsqueeze(1)
            error = reprojection_error(flat_depth, flat_image, K.flatten(0, 1), flat, use, **self.warp)
            losses['loss_photometric'] = self.photometric_weight * masked_mean(*error)
        if self.smooth_weight:
            use = None if mask is None else mask.flatten(0, 1)
            losses['loss_smooth'] = self.smooth_weight * smoothness(flat_depth, flat_image, use)
        if self.cross_view_weight:
            total, count = depth.new_zeros(()), 0
            for b in range(len(depth)):
                pairs, overlap, compared = self.rig_masks(K[b], cam2ref[b], depth.shape[-2:])
                use = None if mask is None else mask[b]
                if use is not None:
                    overlap = overlap & torch.stack([use[target, 0] > 0 for target, _ in pairs]) if pairs else overlap
                    compared = erode(overlap, self.erosion)
                part = cross_view_loss(
                    image[b],
                    depth[b],
                    K[b],
                    cam2ref[b],
                    pairs,
                    overlap,
                    compared,
                    use,
                    scale=self.scale,
                    literal=self.literal,
                    backend=self.backend,
                )
                pixels = part.counts.sum().clamp(min=1)
                total, count = total + part.loss * pixels, count + pixels
            progress = min(1.0, self.step / self.warmup_steps) if self.warmup_steps else 1.0
            losses['loss_cross_view'] = self.cross_view_weight * progress * total / count
        if self.training:
            self.step += 1
        return losses
