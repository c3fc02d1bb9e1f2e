"""Data sets and pipeline steps of the occupancy task."""

from .nuscenes_occ_dataset import NuScenesOccDataset
from .occ3d_nuscenes_dataset import Occ3DNuScenesDataset
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
    'MultiViewPhotoMetricDistortion',
    'NuScenesOccDataset',
    'Occ3DNuScenesDataset',
    'PackOccInputs',
    'ResizeCropFlipImages',
    'SurroundOccNuScenesDataset',
]
