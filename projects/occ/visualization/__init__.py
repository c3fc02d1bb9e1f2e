"""Pictures of label volumes, predictions and rendered maps; no display, no GL."""

from .figures import CameraImages, RenderedMaps, camera_figure, rendered_figure, scene_figure
from .occ_visualizer import OccVisualizer
from .palettes import palette_for
from .visualization_hook import OccVisualizationHook
from .voxel_painter import VoxelPainter

__all__ = [
    'CameraImages',
    'OccVisualizationHook',
    'OccVisualizer',
    'RenderedMaps',
    'VoxelPainter',
    'camera_figure',
    'palette_for',
    'rendered_figure',
    'scene_figure',
]
