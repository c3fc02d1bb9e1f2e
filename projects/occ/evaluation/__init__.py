"""Metrics of 3D occupancy.

``functional`` and ``static_prior`` need torch and numpy only, so the metric classes are loaded on first use. Configs import
their modules, such as ``projects.occ.evaluation.occupancy_metric``, which register them.
"""

from importlib import import_module

_MODULES = {
    'DepthMetric': 'depth_metric',
    'OccupancyMetric': 'occupancy_metric',
    'PoseMetric': 'pose_metric',
    'RayIoUMetric': 'ray_iou_metric',
    'RayProfileMetric': 'ray_profile_metric',
    'RenderedDepthMetric': 'rendered_depth_metric',
}

__all__ = sorted(_MODULES)


def __getattr__(name):
    if name in _MODULES:
        return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
