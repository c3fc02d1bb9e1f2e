"""Building blocks shared by the model families: projection into the cameras, deformable sampling, activation checkpointing."""

from .camera_rebatch import CameraRebatch
from .deformable_sampling import deformable_sampling, star_directions
from .projection import project_points
from .recompute import recompute

__all__ = ['CameraRebatch', 'deformable_sampling', 'project_points', 'recompute', 'star_directions']
