"""What every rendered supervision shares: fields, views, renderers, targets, terms. No method, no model, no config."""

from .camera_sampler import CameraSampler
from .camera_strategies import build_camera_strategy
from .fields import ClassLogitsField
from .free_logit_field import FreeLogitField
from .key_cameras import KeyFrameCameras
from .losses import Term
from .rendered import Rendered
from .splat import SplatRenderer
from .supervision import RenderSupervision, SupervisionGroup, rendered_losses
from .targets import ImageTarget, LabelTarget, Target
from .views import MeasuredRays, SampledCameras

__all__ = [
    'CameraSampler',
    'ClassLogitsField',
    'FreeLogitField',
    'ImageTarget',
    'KeyFrameCameras',
    'LabelTarget',
    'MeasuredRays',
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
