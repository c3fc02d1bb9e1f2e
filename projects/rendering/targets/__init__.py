"""Targets: what renderings of a prediction are compared with."""

from .images import ImageComparison, ImageTarget
from .labels import LabelTarget, labels_from_points
from .rays import RayTarget
from .target import Target, Values

__all__ = ['ImageComparison', 'ImageTarget', 'LabelTarget', 'RayTarget', 'Target', 'Values', 'labels_from_points']
