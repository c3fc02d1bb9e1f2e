"""Differentiable rasteriser for 3D Gaussians with any number of channels. Importing it needs torch only and builds nothing."""

from .backends import build_config, require_backend
from .classic import GaussianRasterizationSettings, GaussianRasterizer
from .functional import RasterOutput, rasterize
from .settings import RasterSettings

__version__ = '0.1.0'
__all__ = [
    'GaussianRasterizationSettings',
    'GaussianRasterizer',
    'RasterOutput',
    'RasterSettings',
    'build_config',
    'rasterize',
    'require_backend',
]
