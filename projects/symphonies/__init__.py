"""Symphonies: instance queries and a scene volume proposed by a depth map, from one camera."""

from .pixel_decoder import MaskDINOPixelDecoder
from .symphonies_encoder import SymphoniesViewEncoder
from .symphonies_head import SymphoniesHead

__all__ = ['MaskDINOPixelDecoder', 'SymphoniesHead', 'SymphoniesViewEncoder']
