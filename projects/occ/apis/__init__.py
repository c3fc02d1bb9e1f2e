"""Using a trained model from Python: images and cameras in, occupancy out."""

from .camera_frames import CameraFrame, read_frames
from .occ_inferencer import OccInferencer

__all__ = ['CameraFrame', 'OccInferencer', 'read_frames']
