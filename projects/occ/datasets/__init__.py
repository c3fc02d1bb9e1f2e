"""Data sets and pipeline steps of the occupancy task."""

from .nuscenes_occ_dataset import NuScenesOccDataset
from .occ3d_nuscenes_dataset import Occ3DNuScenesDataset
from .sscbench_kitti360_dataset import SSCBenchKITTI360Dataset
from .surroundocc_nuscenes_dataset import SurroundOccNuScenesDataset
from .transforms import (
    LoadDepthFromLidar,
    LoadDepthMaps,
    LoadMultiViewImages,
    LoadOccLabels,
    LoadSSCBenchLabels,
    LoadVoxelProjections,
    MultiViewPhotoMetricDistortion,
    PackOccInputs,
    RandomFlipScene,
    ResizeCropFlipImages,
)

__all__ = [
    'LoadDepthFromLidar',
    'LoadDepthMaps',
    'LoadMultiViewImages',
    'LoadOccLabels',
    'LoadSSCBenchLabels',
    'LoadVoxelProjections',
    'MultiViewPhotoMetricDistortion',
    'NuScenesOccDataset',
    'Occ3DNuScenesDataset',
    'PackOccInputs',
    'RandomFlipScene',
    'ResizeCropFlipImages',
    'SSCBenchKITTI360Dataset',
    'SurroundOccNuScenesDataset',
]
