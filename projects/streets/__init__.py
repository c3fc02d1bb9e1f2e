"""Procedural streets: images, LiDAR sweeps, boxes and labels in the on-disk formats of the benchmarks."""

from .config import FORMATS, NUSCENES_FORMATS, PRESETS, CameraSettings, SyntheticConfig, build_config
from .frame import Frame, FrameMaker
from .generate import ExistingDataError, generate, generate_ddad
from .world import World

__all__ = [
    'FORMATS',
    'NUSCENES_FORMATS',
    'PRESETS',
    'CameraSettings',
    'ExistingDataError',
    'Frame',
    'FrameMaker',
    'SyntheticConfig',
    'World',
    'build_config',
    'generate',
    'generate_ddad',
]
