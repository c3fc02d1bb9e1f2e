"""SurroundOcc-nuScenes."""

from mmdet3d.registry import DATASETS

from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.structures.frame_record import FrameRecord, surroundocc_label_path

from .nuscenes_occ_dataset import NuScenesOccDataset


@DATASETS.register_module()
class SurroundOccNuScenesDataset(NuScenesOccDataset):
    """SurroundOcc labels: LiDAR frame, class 0 is empty, 255 is ignored, sparse files.

    A label lies at ``data_prefix['occ']/<LiDAR file name>.npy``; occluded voxels are labelled empty.

    See :class:`NuScenesOccDataset` for the arguments.
    """

    BENCHMARK = BENCHMARKS['surroundocc']
    METAINFO = BENCHMARK.metainfo

    def label_path(self, record: FrameRecord) -> str:
        """``<LiDAR file name>.npy``."""
        return surroundocc_label_path(record)
