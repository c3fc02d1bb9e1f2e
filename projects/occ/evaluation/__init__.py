"""Metrics of 3D occupancy.

``functional`` and ``static_prior`` need torch and numpy only, so the metric classes are loaded on first use. Configs import
``projects.occ.evaluation.occupancy_metric`` and ``.ray_iou_metric``, which register them.
"""

__all__ = ['DepthMetric', 'OccupancyMetric', 'PoseMetric', 'RayIoUMetric']


def __getattr__(name):
    if name == 'DepthMetric':
        from .depth_metric import DepthMetric

        return DepthMetric
    if name == 'OccupancyMetric':
        from .occupancy_metric import OccupancyMetric

        return OccupancyMetric
    if name == 'PoseMetric':
        from .pose_metric import PoseMetric

        return PoseMetric
    if name == 'RayIoUMetric':
        from .ray_iou_metric import RayIoUMetric

        return RayIoUMetric
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
