"""Stateless evaluation functions; torch, numpy and numba only."""

from .confusion import ABSENT_POLICIES, summarize_confusion, voxel_confusion
from .ray_casting import cast_rays, ray_directions
from .ray_iou import RayCounts, count_rays, lidar_origins, ray_iou, summarize_rays

__all__ = [
    'ABSENT_POLICIES',
    'RayCounts',
    'cast_rays',
    'count_rays',
    'lidar_origins',
    'ray_directions',
    'ray_iou',
    'summarize_confusion',
    'summarize_rays',
    'voxel_confusion',
]
