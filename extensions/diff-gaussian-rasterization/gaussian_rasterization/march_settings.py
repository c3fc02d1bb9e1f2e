"""The options of ray marching, and the contraction that brings far samples back into the grid."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FORMS = ('nerf', 'dvgo', 'prob')
LAST_STEPS = ('repeat', 'inf')
DEPTH_MODES = ('range', 'contracted')
DISTORTION_INTERVALS = ('width', 'count')
INFINITE_STEP = 1e10
"""Metres of the last step with ``last_step='inf'``."""

OUTER_SHARE = 15
"""One sample outside the radius for so many inside it."""

OUTER_REACH = 64.0
"""The last outer sample edge, in units of the first one."""


def _numbers(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f'{owner}.{name} must be finite, got {value!r}')


@dataclass(frozen=True)
class MipContraction:
    """Contraction of space outside a sphere (mip-NeRF 360): points inside stay, infinity lands on the sphere ``limit``.

    With q = \\|x - center\\| / radius, a point q > 1 moves to distance ``radius * (1 + g - g / q)``, g = limit / radius - 1.

    Args:
        center: Centre of the scene, metres, in the frame of the grid.
        radius: Radius of the untouched sphere, metres.
        limit: Distance of infinity after the contraction, metres; half the extent of the grid.
        min_spacing: Samples outside the sphere are kept only when the ray has moved on by more than this, metres, measured
            after the contraction and since the count last restarted; 0 keeps all.

    Raises:
        ValueError: If a number is out of range.
    """

    center: tuple[float, float, float]
    radius: float
    limit: float
    min_spacing: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, 'center', tuple(float(x) for x in self.center))
        for name in ('radius', 'limit', 'min_spacing'):  # plain numbers, which torch.compile takes as constants
            object.__setattr__(self, name, float(getattr(self, name)))
        if len(self.center) != 3:
            raise ValueError(f'MipContraction.center must be three numbers, got {self.center}')
        _numbers('MipContraction', **{f'center[{i}]': x for i, x in enumerate(self.center)})
        _numbers('MipContraction', radius=self.radius, limit=self.limit, min_spacing=self.min_spacing)
        for name, good, want in (
            ('radius', self.radius > 0, '> 0'),
            ('limit', self.limit > self.radius, f'larger than the radius {self.radius}'),
            ('min_spacing', self.min_spacing >= 0, '>= 0'),
        ):
            if not good:
                raise ValueError(f'MipContraction.{name} must be {want}, got {getattr(self, name)!r}')

    @classmethod
    def of_grid(cls, lower, voxel_size, shape, step: float = 0.5, margin: float = 1.0) -> 'MipContraction':
        """The contraction that fills a grid.

        Args:
            lower: (3,) lower corner of the grid, metres.
            voxel_size: (3,) metres.
            shape: (3,) cells.
            step: Distance of samples in voxels (x axis).
            margin: Metres left for everything outside the sphere.
        """
        lower, voxel_size = ([float(v) for v in x] for x in (lower, voxel_size))
        extent = [v * int(n) for v, n in zip(voxel_size, shape, strict=True)]
        limit = min(extent[:2]) / 2
        center = [low + size / 2 for low, size in zip(lower, extent, strict=True)]
        return cls(center, limit - margin, limit, 0.95 * step * 2 * limit / round(2 * limit / voxel_size[0]))

    @property
    def background(self) -> float:
        """Room for the outside, in units of the radius."""
        return self.limit / self.radius - 1

    def contract(self, points: Tensor) -> Tensor:
        """(..., 3) metres -> (..., 3) metres inside the sphere ``limit``."""
        center = points.new_tensor(self.center)
        p = (points - center) / self.radius
        return center + self.radius * contract_unit(p, self.background)[0]

    def expand(self, points: Tensor) -> Tensor:
        """Inverse of :meth:`contract`; points on or outside the sphere ``limit`` go to infinity."""
        center, g = points.new_tensor(self.center), self.background
        p = (points - center) / self.radius
        length = p.norm(dim=-1, keepdim=True)
        # length = 1 + g - g / q
        q = g / (1 + g - length).clamp_min(0)
        return center + self.radius * torch.where(length > 1, p * (q / length.clamp_min(1)), p)

    def distances(self, cells: int, step: float = 0.5, dtype: torch.dtype = torch.float32) -> Tensor:
        """Sample distances along a ray: even up to two radii, even in 1 / t behind.

        Args:
            cells: Cells of the grid along its shorter horizontal axis.
            step: Distance of samples in voxels.
            dtype: Of the result; computed in float64.

        Returns:
            (S,) increasing, metres.
        """
        inner = math.floor(2 / (2 + 2 * self.background) * cells / step + 1e-6) + 1
        near = torch.linspace(0, 2, inner + 1, dtype=torch.float64)
        far = 2 / torch.linspace(1, 1 / OUTER_REACH, inner // OUTER_SHARE + 1, dtype=torch.float64)
        middle = torch.cat([(edges[1:] + edges[:-1]) / 2 for edges in (near, far)])
        return (self.radius * middle).to(dtype)


def contract_unit(p: Tensor, background: float) -> tuple[Tensor, Tensor]:
    """Contract points (..., 3) around the origin in units of the radius; the order of operations is that of the kernels.

    Returns:
        Contracted points (..., 3), and (...,) bool: inside the sphere.
    """
    x, y, z = p.unbind(-1)
    q = (x * x + y * y + z * z).sqrt()
    scale = ((1 + background) - background / q) / q
    return torch.where((q > 1)[..., None], p * scale[..., None], p), q <= 1


@dataclass(frozen=True)
class MarchSettings:
    """How density becomes opacity along a ray, and what is left out.

    Args:
        form: ``'nerf'``: density is per metre, alpha = 1 - exp(-density * step); a negative one acts as 0. ``'dvgo'``: a raw
            value x per voxel, alpha = 1 - exp(-interval * softplus(x + shift)) whatever the step. ``'prob'``: a logit x of
            being occupied, weight = what sigmoid(x) adds to the running sum until that reaches 1.
        shift: Of ``'dvgo'``; the default makes x = 0 an alpha of 1e-6 per voxel.
        interval: Of ``'dvgo'``: step in voxels.
        last_step: Length of the last step of ``'nerf'`` when ``t`` holds positions: ``'repeat'`` the one before, or ``'inf'``.
        align_corners: False: a voxel's value sits at its centre; True: outer voxel centres sit on the borders of the grid.
        contraction: None: straight samples; else where they are looked up.
        alpha_min: Samples with alpha <= this are skipped; 0 keeps all.
        transmittance_min: A ray ends after the sample that takes its transmittance below this; 0: never.
        weight_min: Samples with weight <= this count for the transmittance only; 0 counts all.
        depth_mode: ``'range'``: sum of weight * t. ``'contracted'``: of weight * distance_scale * s, s = u / (1 + u),
            u = t / distance_scale, as a published implementation does.
        distortion: None: not computed. Else the interval in the self term of the distortion of s: ``'width'`` of the sample
            in s, ``'count'``: 1 / number of samples that count, or a number.
        distance_scale: Unit of u, metres; None: radius of the contraction, or 1.
        weights: Return the weights of all samples, (B, R, S): large, for losses of their own.
        debug: Look for non-finite inputs and raise, naming tensor and index.

    Raises:
        ValueError: If an option is out of range.
    """

    form: str = 'nerf'
    shift: float = math.log(1 / (1 - 1e-6) - 1)
    interval: float = 0.5
    last_step: str = 'repeat'
    align_corners: bool = False
    contraction: MipContraction | None = None
    alpha_min: float = 0.0
    transmittance_min: float = 0.0
    weight_min: float = 0.0
    depth_mode: str = 'range'
    distortion: str | float | None = None
    distance_scale: float | None = None
    weights: bool = False
    debug: bool = False

    def __post_init__(self):
        for name, allowed in (('form', FORMS), ('last_step', LAST_STEPS), ('depth_mode', DEPTH_MODES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f'MarchSettings.{name} must be one of {allowed}, got {value!r}')
        if isinstance(self.distortion, str) and self.distortion not in DISTORTION_INTERVALS:
            raise ValueError(
                f'MarchSettings.distortion must be None, a number or one of {DISTORTION_INTERVALS}, got {self.distortion!r}'
            )
        if not (self.contraction is None or isinstance(self.contraction, MipContraction)):
            raise ValueError(f'MarchSettings.contraction must be None or MipContraction(...), got {self.contraction!r}')
        _numbers('MarchSettings', shift=self.shift)
        number = isinstance(self.distortion, (int, float))
        for name, good, want in (
            ('interval', 0 < self.interval < math.inf, 'finite and > 0'),
            ('alpha_min', 0 <= self.alpha_min < 1, 'in [0, 1)'),
            ('transmittance_min', 0 <= self.transmittance_min < 1, 'in [0, 1)'),
            ('weight_min', 0 <= self.weight_min < 1, 'in [0, 1)'),
            ('distortion', not number or 0 <= self.distortion < math.inf, 'finite and >= 0'),
            ('distance_scale', self.distance_scale is None or 0 < self.distance_scale < math.inf, 'finite and > 0'),
        ):
            if not good:
                raise ValueError(f'MarchSettings.{name} must be {want}, got {getattr(self, name)!r}')
        if self.contraction is not None and self.distance_scale not in (None, self.contraction.radius):
            raise ValueError(
                'MarchSettings.distance_scale must be left out or equal to the radius of the contraction '
                f'{self.contraction.radius}, got {self.distance_scale!r}'
            )

    @property
    def unit(self) -> float:
        """Metres of one unit of u."""
        if self.contraction is not None:
            return self.contraction.radius
        return 1.0 if self.distance_scale is None else self.distance_scale
