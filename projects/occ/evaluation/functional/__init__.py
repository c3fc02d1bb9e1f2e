"""Stateless evaluation functions; torch, numpy and numba only."""

from .confusion import ABSENT_POLICIES, summarize_confusion, voxel_confusion
from .depth_metrics import DEPTH_METRICS, depth_at_pixels, depth_metrics, summarize_depth_metrics
from .image_metrics import depth_errors, summarize_images
from .ray_casting import cast_rays, ray_directions
from .ray_casting_torch import cast_rays_torch
from .ray_iou import RayCounts, count_rays, ray_iou, summarize_rays
from .ray_origins import lidar_origins, origins_by_token

__all__ = [
    'ABSENT_POLICIES',
    'DEPTH_METRICS',
    'RayCounts',
    'cast_rays',
    'cast_rays_torch',
    'count_rays',
    'depth_at_pixels',
    'depth_errors',
    'depth_metrics',
    'lidar_origins',
    'origins_by_token',
    'ray_directions',
    'ray_iou',
    'summarize_confusion',
    'summarize_depth_metrics',
    'summarize_images',
    'summarize_rays',
    'voxel_confusion',
]
