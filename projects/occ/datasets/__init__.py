"""Data sets and pipeline steps of the occupancy task."""

from .kitti360_labels import LoadSSCBenchLabels
from .nuscenes_occ_dataset import NuScenesOccDataset
from .occ3d_nuscenes_dataset import Occ3DNuScenesDataset
from .sscbench_kitti360_dataset import SSCBenchKITTI360Dataset
from .surroundocc_nuscenes_dataset import SurroundOccNuScenesDataset
from .transforms import (
    LoadMultiViewImages,
    LoadOccLabels,
    MultiViewPhotoMetricDistortion,
    PackOccInputs,
    ResizeCropFlipImages,
)

__all__ = [
    'LoadMultiViewImages',
    'LoadOccLabels',
    'LoadSSCBenchLabels',
    'MultiViewPhotoMetricDistortion',
    'NuScenesOccDataset',
    'Occ3DNuScenesDataset',
    'PackOccInputs',
    'ResizeCropFlipImages',
    'SSCBenchKITTI360Dataset',
    'SurroundOccNuScenesDataset',
]
