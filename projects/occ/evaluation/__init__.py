"""Metrics of 3D occupancy.

``functional``, ``presets`` and ``static_prior`` need torch and numpy only. ``OccupancyMetric`` needs mmengine and is loaded on
first use; a config registers it with ``custom_imports = dict(imports=['projects.occ.evaluation.occupancy_metric'])``.
"""

__all__ = ['OccupancyMetric']


def __getattr__(name):
    if name == 'OccupancyMetric':
        from .occupancy_metric import OccupancyMetric

        return OccupancyMetric
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
