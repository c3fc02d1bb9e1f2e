"""Metrics of 3D occupancy.

``functional``, ``presets`` and ``static_prior`` need torch and numpy only, so ``OccupancyMetric`` is loaded on first use.
Configs import ``projects.occ.evaluation.occupancy_metric``, which registers it.
"""

__all__ = ['OccupancyMetric']


def __getattr__(name):
    if name == 'OccupancyMetric':
        from .occupancy_metric import OccupancyMetric

        return OccupancyMetric
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
