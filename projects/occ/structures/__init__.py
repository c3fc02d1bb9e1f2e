"""Plain data that travels between the layers.

``VoxelGrid`` and ``OccPrediction`` need torch and numpy only; ``OccDataSample`` needs mmengine and is loaded on first use.
"""

from .occ_prediction import OccPrediction
from .voxel_grid import VoxelGrid

__all__ = ['OccDataSample', 'OccPrediction', 'VoxelGrid']


def __getattr__(name):
    if name == 'OccDataSample':
        from .occ_data_sample import OccDataSample

        return OccDataSample
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
