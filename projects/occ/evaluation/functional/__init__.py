"""Stateless evaluation functions; torch, numpy and numba only."""

from .confusion import ABSENT_POLICIES, summarize_confusion, voxel_confusion
from .depth_metrics import DEPTH_METRICS, depth_at_pixels, depth_metrics, summarize_depth_metrics
from .image_metrics import depth_errors, summarize_images
from .paired_statistics import (
    PairedDifference,
    class_counts,
    holm,
    mean_iou,
    occupied_counts,
    paired_bootstrap,
    ratio_of_sums,
    ray_iou_of_counts,
)
from .profile_sums import RANGE_BANDS, profile_means, profile_sums, query_rays
from .ray_casting import cast_rays, ray_directions
from .ray_casting_torch import cast_rays_torch
from .ray_iou import RayCounts, count_rays, ray_iou, summarize_rays
from .ray_origins import lidar_origins, origins_by_token
from .ray_profile import first_surfaces, floaters_and_holes, ray_profile
from .threshold_search import ThresholdSearch

__all__ = [
    'ABSENT_POLICIES',
    'DEPTH_METRICS',
    'RANGE_BANDS',
    'PairedDifference',
    'RayCounts',
    'ThresholdSearch',
    'cast_rays',
    'cast_rays_torch',
    'class_counts',
    'count_rays',
    'depth_at_pixels',
    'depth_errors',
    'depth_metrics',
    'first_surfaces',
    'floaters_and_holes',
    'holm',
    'lidar_origins',
    'mean_iou',
    'occupied_counts',
    'origins_by_token',
    'paired_bootstrap',
    'profile_means',
    'profile_sums',
    'query_rays',
    'ratio_of_sums',
    'ray_directions',
    'ray_iou',
    'ray_iou_of_counts',
    'ray_profile',
    'summarize_confusion',
    'summarize_depth_metrics',
    'summarize_images',
    'summarize_rays',
    'voxel_confusion',
]
