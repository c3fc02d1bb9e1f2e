"""Building blocks shared by the model families: projection into the cameras and deformable sampling per camera."""

from .camera_rebatch import CameraRebatch
from .deformable_sampling import deformable_sampling, star_directions
from .projection import check_cameras, project_points

__all__ = ['CameraRebatch', 'check_cameras', 'deformable_sampling', 'project_points', 'star_directions']
