"""BEVDet for occupancy: images lifted into voxels by depth, with stereo and earlier frames."""

from .bevdet_encoder import BEVDetViewEncoder, LiftedScene
from .bevdet_head import BEVDetOccHead, DensityOccHead, LiftedDepthLoss
from .bevdet_segmentor import BEVDetSegmentor
from .cost_volume import cost_volume
from .depth_net import CameraAwareDepthNet, LSSDepthNet
from .image_networks import LSSFPN, SingleLevelFPN, StereoResNet, StereoSwinTransformer
from .measured_depth import MeasuredDepth
from .voxel_network import LSSFPN3D, ResNet3D

__all__ = [
    'BEVDetOccHead',
    'BEVDetSegmentor',
    'BEVDetViewEncoder',
    'CameraAwareDepthNet',
    'DensityOccHead',
    'LSSDepthNet',
    'LSSFPN',
    'LSSFPN3D',
    'LiftedDepthLoss',
    'LiftedScene',
    'MeasuredDepth',
    'ResNet3D',
    'SingleLevelFPN',
    'StereoResNet',
    'StereoSwinTransformer',
    'cost_volume',
]
