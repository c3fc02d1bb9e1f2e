"""Targets: what renderings of a prediction are compared with."""

from .labels import LabelTarget, labels_from_points
from .target import Target, Values

__all__ = ['LabelTarget', 'Target', 'Values', 'labels_from_points']
