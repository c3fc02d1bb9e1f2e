"""Numbers of the rasteriser contract. ``csrc/common.h`` repeats those that are no options; a test compares the two files."""

NEAR = 0.2
"""Gaussians whose centre is not deeper than this (metres) are discarded."""

DILATION = 0.3
"""Added to both diagonal entries of the projected covariance, in square pixels."""

ALPHA_MIN = 1.0 / 255.0
"""A Gaussian does not touch pixels where its alpha is smaller."""

ALPHA_MAX = 0.99
"""Cap of alpha: no Gaussian is fully opaque, so 1 / (1 - alpha) stays at or below 100."""

TRANSMITTANCE_MIN = 1e-4
"""A pixel stops in front of the first Gaussian that would take its transmittance below this."""

CLAMP_MARGIN = 0.3
"""The direction inside the Jacobian may leave the image by this share of tan(fov / 2)."""

RADIUS_SIGMAS = 3.0
"""``radii`` is this many standard deviations of the longer axis, rounded up."""

RADIUS_FLOOR = 0.1
"""Lower bound of the discriminant under the root of the larger eigenvalue (square pixels squared)."""

Z_LIMIT = 1e15
"""Deeper Gaussians (metres) are discarded like non-finite ones: sums with their depth overflow float32."""

COMPAT_TILE = 12
"""Tile side, pixels, of ``tile_compat='rect12'``."""

MASK_TILE = 16
"""Side, pixels, of the blocks that ``tile_mask`` switches."""

EXTENT_FACTOR = 1.001
"""Lists take the ellipse alpha >= alpha_min this much (squared length) larger; the test per pixel decides."""

EXTENT_MARGIN = 1e-3
"""Added to the squared length, too."""
