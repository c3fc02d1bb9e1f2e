"""Parts that all occupancy networks share; importing this package registers them."""

from .base_occ_head import BaseOccHead
from .data_preprocessor import OccDataPreprocessor
from .density_head import DensityHead
from .density_loss import DensityOccLoss
from .flip_tta import FlipTTA
from .grid_mask import OccGridMask
from .occ_segmentor import OccSegmentor
from .occupancy_loss import OccupancyLoss
from .teacher_consistency import TeacherConsistency
from .timm_backbone import TimmBackbone

__all__ = [
    'BaseOccHead',
    'FlipTTA',
    'DensityHead',
    'DensityOccLoss',
    'OccDataPreprocessor',
    'OccGridMask',
    'OccSegmentor',
    'OccupancyLoss',
    'TeacherConsistency',
    'TimmBackbone',
]
