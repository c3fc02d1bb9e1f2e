"""Using a trained model from Python: images and cameras in, occupancy out."""

from .camera_frames import CameraFrame, read_frames
from .fixed_rig import FixedRig
from .occ_inferencer import OccInferencer

__all__ = ['CameraFrame', 'FixedRig', 'OccInferencer', 'read_frames']
