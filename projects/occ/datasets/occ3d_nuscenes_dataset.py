"""Occ3D-nuScenes."""

from dataclasses import replace

from mmdet3d.registry import DATASETS

from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.structures.frame_record import FrameRecord, occ3d_label_path

from .nuscenes_occ_dataset import NuScenesOccDataset, scenes_by_token


@DATASETS.register_module()
class Occ3DNuScenesDataset(NuScenesOccDataset):
    """Occ3D labels: ego frame, class 17 is free, visibility masks in the file.

    A label lies at ``data_prefix['occ']/<scene>/<token>/labels.npz``. Annotation files that know neither the scene's name nor
    ``occ_path`` (mmdetection3d's own) are completed by listing the label folder once.

    See :class:`NuScenesOccDataset` for the arguments.
    """

    BENCHMARK = BENCHMARKS['occ3d']
    METAINFO = BENCHMARK.metainfo

    def label_path(self, record: FrameRecord) -> str:
        """``<scene>/<token>/labels.npz``."""
        return occ3d_label_path(record)

    def load_data_list(self) -> list[dict]:
        """As in the base class; looks up scene names once if the annotation file has none."""
        self._scenes: dict[str, str] = {}
        self._scanned = False
        return super().load_data_list()

    def complete(self, record: FrameRecord) -> FrameRecord:
        """As in the base class, with the scene's name where the file lacks it."""
        if not occ3d_label_path(record):
            if not self._scanned:
                self._scenes = scenes_by_token(self.data_prefix['occ'])
                self._scanned = True
            record = replace(record, scene_name=self._scenes.get(record.token, ''))
        return super().complete(record)
