"""GaussRender: rendered 2D supervision for voxel occupancy networks. Needs torch and numpy, no registry."""

from .camera_batch import CameraBatch
from .gauss_render import GaussRender, RenderedScene

__all__ = ['CameraBatch', 'GaussRender', 'RenderedScene']
