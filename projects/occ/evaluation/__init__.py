"""Metrics of 3D occupancy.

``functional``, ``presets`` and ``static_prior`` need torch and numpy only; a program that scores plain arrays with them is not
made to load mmdetection3d. In a program that has loaded it, importing this package registers ``OccupancyMetric``. A config that
names the module itself, ``projects.occ.evaluation.occupancy_metric``, does not depend on that order.
"""

import sys

__all__ = ['OccupancyMetric']


def __getattr__(name):
    if name == 'OccupancyMetric':
        from .occupancy_metric import OccupancyMetric

        return OccupancyMetric
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if 'mmdet3d' in sys.modules:
    from .occupancy_metric import OccupancyMetric
