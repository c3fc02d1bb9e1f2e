"""Differentiable splatting and ray marching with any number of channels. Importing it needs torch only and builds nothing."""

from .backends import build_config, require_backend
from .classic import GaussianRasterizationSettings, GaussianRasterizer
from .functional import RasterOutput, rasterize
from .loss import fused_render_loss, has_fused_loss
from .loss_settings import RenderLossOutput, RenderLossSettings, TargetGaussians, TargetImages
from .march import MarchOutput, march_rays
from .march_reference import optical_depth, probability_weights, ray_distortion, ray_weights
from .march_settings import MarchSettings, MipContraction
from .settings import RasterSettings

__version__ = '0.1.0'
__all__ = [
    'GaussianRasterizationSettings',
    'GaussianRasterizer',
    'MarchOutput',
    'MarchSettings',
    'MipContraction',
    'RasterOutput',
    'RasterSettings',
    'RenderLossOutput',
    'RenderLossSettings',
    'TargetGaussians',
    'TargetImages',
    'build_config',
    'fused_render_loss',
    'has_fused_loss',
    'march_rays',
    'optical_depth',
    'probability_weights',
    'rasterize',
    'ray_distortion',
    'ray_weights',
    'require_backend',
]
