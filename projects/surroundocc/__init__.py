"""SurroundOcc: dense volumes of several resolutions."""

from .surroundocc_encoder import SurroundOccViewEncoder
from .surroundocc_head import SurroundOccHead

__all__ = ['SurroundOccHead', 'SurroundOccViewEncoder']
