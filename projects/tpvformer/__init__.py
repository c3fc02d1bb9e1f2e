"""TPVFormer: three feature planes instead of a dense voxel volume."""

from .tpvformer_encoder import TPVFormerViewEncoder
from .tpvformer_head import TPVFormerOccHead

__all__ = ['TPVFormerOccHead', 'TPVFormerViewEncoder']
