"""Data sets and pipeline steps of the occupancy task."""

from .ddad_dataset import DDADDataset
from .nuscenes_occ_dataset import NuScenesOccDataset
from .occ3d_nuscenes_dataset import Occ3DNuScenesDataset
from .sscbench_kitti360_dataset import SSCBenchKITTI360Dataset
from .surroundocc_nuscenes_dataset import SurroundOccNuScenesDataset
from .transforms import (
    LoadDepthFromLidar,
    LoadDepthMaps,
    LoadDepthPixels,
    LoadMultiViewImages,
    LoadOccLabels,
    LoadPseudoLabels,
    LoadSelfOcclusionMasks,
    LoadSSCBenchLabels,
    LoadVoxelProjections,
    MultiViewPhotoMetricDistortion,
    PackOccInputs,
    RandomFlipScene,
    ResizeCropFlipImages,
)

__all__ = [
    'DDADDataset',
    'LoadDepthFromLidar',
    'LoadDepthMaps',
    'LoadDepthPixels',
    'LoadMultiViewImages',
    'LoadOccLabels',
    'LoadPseudoLabels',
    'LoadSSCBenchLabels',
    'LoadSelfOcclusionMasks',
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
