"""Plain data that travels between the layers.

All need torch and numpy only but ``OccDataSample``, which needs mmengine and is loaded on first use.
"""

from .cameras import Cameras, sample_cameras
from .contracted_grid import ContractedGrid
from .occ_batch import ImageList, OccBatch
from .occ_field import OccField, free_background
from .occ_prediction import OccPrediction
from .rays import Rays
from .voxel_grid import VoxelGrid
from .voxel_projection import (
    VoxelProjection,
    frustum_indices,
    network_intrinsics,
    project_voxel_centres,
    scaled_shape,
    voxel_centres,
)

__all__ = [
    'Cameras',
    'ContractedGrid',
    'ImageList',
    'OccBatch',
    'OccDataSample',
    'OccField',
    'OccPrediction',
    'Rays',
    'VoxelGrid',
    'VoxelProjection',
    'free_background',
    'frustum_indices',
    'network_intrinsics',
    'project_voxel_centres',
    'sample_cameras',
    'scaled_shape',
    'voxel_centres',
]


def __getattr__(name):
    if name == 'OccDataSample':
        from .occ_data_sample import OccDataSample

        return OccDataSample
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
