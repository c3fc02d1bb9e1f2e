"""Pipeline steps of the occupancy data sets."""

from .augmentation import MultiViewPhotoMetricDistortion, ResizeCropFlipImages
from .depth import LoadDepthFromLidar, LoadDepthMaps
from .formatting import PackOccInputs
from .label_loading import LoadOccLabels, LoadSSCBenchLabels
from .loading import LoadMultiViewImages
from .scene_flip import RandomFlipScene
from .voxel_projections import LoadVoxelProjections

__all__ = [
    'LoadDepthFromLidar',
    'LoadDepthMaps',
    'LoadMultiViewImages',
    'LoadOccLabels',
    'LoadSSCBenchLabels',
    'LoadVoxelProjections',
    'MultiViewPhotoMetricDistortion',
    'PackOccInputs',
    'RandomFlipScene',
    'ResizeCropFlipImages',
]
