"""Pictures, videos and web pages of label volumes, predictions and rendered maps; no display, no GL."""

from .camera_path import CameraPath
from .figures import CameraImages, RenderedMaps, camera_figure, comparison_figure, rendered_figure, scene_figure
from .occ_visualizer import OccVisualizer
from .palettes import palette_for
from .ray_maps import cast_maps
from .scene_html import SceneHtml, ViewerCamera, ViewerFrame, read_scene_html
from .scene_videos import SceneVideos
from .video_files import write_video
from .visualization_hook import OccVisualizationHook
from .voxel_painter import VoxelPainter

__all__ = [
    'CameraImages',
    'CameraPath',
    'OccVisualizationHook',
    'OccVisualizer',
    'RenderedMaps',
    'SceneHtml',
    'SceneVideos',
    'ViewerCamera',
    'ViewerFrame',
    'VoxelPainter',
    'camera_figure',
    'cast_maps',
    'comparison_figure',
    'palette_for',
    'read_scene_html',
    'rendered_figure',
    'scene_figure',
    'write_video',
]
