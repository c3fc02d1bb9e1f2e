"""What every rendered supervision shares: fields, views, renderers, targets, terms. No method, no model, no config."""

from . import image_terms, ray_terms  # noqa: F401  (name their terms)
from .camera_sampler import CameraSampler
from .camera_strategies import build_camera_strategy
from .density_field import DensityField
from .fields import ClassLogitsField
from .free_logit_field import FreeLogitField
from .key_cameras import KeyFrameCameras
from .losses import Term
from .march import MarchRenderer
from .ray_queries import RayQueries, RayQueryTarget
from .rendered import Rendered
from .splat import SplatRenderer
from .supervision import RenderSupervision, SupervisionGroup, rendered_losses
from .targets import ImageTarget, LabelTarget, RayTarget, Target
from .views import MeasuredRays, SampledCameras

__all__ = [
    'CameraSampler',
    'ClassLogitsField',
    'DensityField',
    'FreeLogitField',
    'ImageTarget',
    'KeyFrameCameras',
    'LabelTarget',
    'MarchRenderer',
    'MeasuredRays',
    'RayQueries',
    'RayQueryTarget',
    'RayTarget',
    'RenderSupervision',
    'Rendered',
    'SampledCameras',
    'SplatRenderer',
    'SupervisionGroup',
    'Target',
    'Term',
    'build_camera_strategy',
    'rendered_losses',
]
