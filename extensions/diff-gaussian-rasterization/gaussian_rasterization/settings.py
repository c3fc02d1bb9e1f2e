"""The options of a render call."""

from dataclasses import dataclass

from . import constants

CAP_GRADIENTS = ('straight', 'exact')
JACOBIAN_CLAMPS = ('symmetric', 'offcentre')
TILE_COMPATS = (None, 'rect12')


@dataclass(frozen=True)
class RasterSettings:
    """Thresholds and variants of the rasteriser; the defaults are those of the original extension without its tile artefact.

    Args:
        near: Gaussians with z <= near (metres, camera frame) are discarded.
        dilation: Added to the diagonal of the projected covariance (square pixels).
        alpha_min: Pairs with a smaller alpha are skipped.
        alpha_max: Alpha is capped here.
        transmittance_min: A pixel stops before the Gaussian that would push its transmittance below this value.
        jacobian_clamp: Limits of x / z and y / z inside the Jacobian of the projection. ``'symmetric'``: 1.3 tan(fov / 2) on
            both sides of the optical axis, like the original; ``'offcentre'``: 0.3 tan(fov / 2) beyond the image borders,
            right for any principal point and the same for a central one.
        cap_gradient: Derivative of the cap. ``'straight'``: 1, a capped Gaussian still learns (the original); ``'exact'``: 0.
        tile_compat: ``None``: every pixel with alpha >= alpha_min is drawn. ``'rect12'``: only 12-pixel tiles that meet the
            square of half-width ``radii`` are drawn, and a clamped argument of the Jacobian is a constant in the backward
            pass; both reproduce the original.
        scale_modifier: Factor on all scales.
        debug: Look for non-finite inputs and raise, naming tensor and index. Off: a Gaussian whose position, shape or opacity
            is not finite is not drawn and gets zero gradients; non-finite features show in the pixels around it.

    Raises:
        ValueError: If an option is out of range.
    """

    near: float = constants.NEAR
    dilation: float = constants.DILATION
    alpha_min: float = constants.ALPHA_MIN
    alpha_max: float = constants.ALPHA_MAX
    transmittance_min: float = constants.TRANSMITTANCE_MIN
    jacobian_clamp: str = 'symmetric'
    cap_gradient: str = 'straight'
    tile_compat: str | None = None
    scale_modifier: float = 1.0
    debug: bool = False

    def __post_init__(self):
        for name, allowed in (
            ('jacobian_clamp', JACOBIAN_CLAMPS),
            ('cap_gradient', CAP_GRADIENTS),
            ('tile_compat', TILE_COMPATS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f'RasterSettings.{name} must be one of {allowed}, got {value!r}')
        for name, good, want in (
            ('near', self.near > 0, '> 0'),
            ('dilation', self.dilation >= 0, '>= 0'),
            ('alpha_max', 0 < self.alpha_max < 1, 'between 0 and 1 (both excluded)'),
            ('alpha_min', 0 < self.alpha_min <= self.alpha_max, 'above 0 and at most alpha_max'),
            ('transmittance_min', 0 < self.transmittance_min < 1, 'between 0 and 1 (both excluded)'),
            ('scale_modifier', 0 <= self.scale_modifier < float('inf'), 'finite and >= 0'),
        ):
            if not good:
                raise ValueError(f'RasterSettings.{name} must be {want}, got {getattr(self, name)!r}')
