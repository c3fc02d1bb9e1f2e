"""GaussianOcc: occupancy from images alone, on a grid that reaches to the horizon."""

from .average_lift import AverageLiftViewEncoder
from .depth_network import DepthNetwork
from .depth_pose_model import DepthPoseModel
from .gaussianocc_neck import GaussianOccNeck
from .hourglass_head import HourglassOccHead
from .pose_network import PoseNetwork

__all__ = ['AverageLiftViewEncoder', 'DepthNetwork', 'DepthPoseModel', 'GaussianOccNeck', 'HourglassOccHead', 'PoseNetwork']
