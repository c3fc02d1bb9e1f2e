"""Pipeline steps of the occupancy data sets."""

from .augmentation import MultiViewPhotoMetricDistortion, ResizeCropFlipImages
from .camera_time import ReferenceAtCameraTime
from .depth import LoadDepthFromLidar, LoadDepthMaps
from .formatting import PackOccInputs
from .grid_mirror import RandomMirrorGrid
from .hidden_labels import HideLabels
from .image_masks import LoadSelfOcclusionMasks
from .label_loading import LoadOccLabels, LoadSSCBenchLabels
from .lidar_pixels import LoadDepthPixels
from .lidar_rays import LoadLidarRays
from .loading import LoadMultiViewImages
from .pseudo_labels import LoadPseudoLabels
from .scene_flip import RandomFlipScene
from .voxel_projections import LoadVoxelProjections
from .whole_images import JitterColors, ResizeImages

__all__ = [
    'HideLabels',
    'JitterColors',
    'LoadDepthFromLidar',
    'LoadDepthMaps',
    'LoadDepthPixels',
    'LoadLidarRays',
    'LoadMultiViewImages',
    'LoadOccLabels',
    'LoadPseudoLabels',
    'LoadSSCBenchLabels',
    'LoadSelfOcclusionMasks',
    'LoadVoxelProjections',
    'MultiViewPhotoMetricDistortion',
    'PackOccInputs',
    'RandomFlipScene',
    'RandomMirrorGrid',
    'ReferenceAtCameraTime',
    'ResizeCropFlipImages',
    'ResizeImages',
]
