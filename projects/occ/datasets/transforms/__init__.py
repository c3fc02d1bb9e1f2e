"""Pipeline steps of the occupancy data sets."""

from .augmentation import MultiViewPhotoMetricDistortion, ResizeCropFlipImages
from .formatting import PackOccInputs
from .loading import LoadMultiViewImages, LoadOccLabels

__all__ = [
    'LoadMultiViewImages',
    'LoadOccLabels',
    'MultiViewPhotoMetricDistortion',
    'PackOccInputs',
    'ResizeCropFlipImages',
]
