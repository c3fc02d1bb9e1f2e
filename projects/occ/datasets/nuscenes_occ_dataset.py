"""What the two nuScenes occupancy benchmarks have in common."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmdet3d.registry import DATASETS
from mmengine.logging import print_log

from projects.occ.structures import VoxelGrid
from projects.occ.structures.frame_record import FrameRecord, geometry_problems

from .frame_dataset import FrameDataset
from .info_formats import read_info_file

# The order of the per-camera embeddings of the published checkpoints.
NUSCENES_CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')

MINI_FRACTION = 0.2
MINI_SEED = 2025


def mini_subset_indices(num_frames: int) -> list[int]:
    """Indices of the 20 % subset that the ablations of GaussRender use, in their (shuffled) order.

    It depends on the number of frames only and draws from a generator of its own, so no cache file is needed.
    """
    return random.Random(MINI_SEED).sample(range(num_frames), int(MINI_FRACTION * num_frames))


@DATASETS.register_module()
class NuScenesOccDataset(FrameDataset):
    """Key frames of an annotation file with an occupancy label each: frames of one's own, and the base of the two benchmarks.

    Args:
        ann_file: Annotation pickle, relative to ``data_root``; any format of ``info_formats.py``. Neighbouring key frames are
            found in files that name neighbours or scenes, camera sweeps in those that hold them (docs/datasets.md,
            "Neighbouring frames").
        grid: Fields of :class:`VoxelGrid`, or one.
        data_root: Root folder of everything else.
        data_prefix: Folders below ``data_root``: ``img`` and ``pts`` hold ``samples/<sensor>/``, ``occ`` holds the labels.
        cam_names: Cameras to use and their order; None for the six of nuScenes.
        subset: ``'all'``, or ``'mini'`` for the 20 % subset of the published ablations.
        ego_motion_compensation: Only for grids in the ego frame: whether ``ref2img``, by which the network samples its images,
            takes the ego motion between LiDAR and camera time into account. False is what the published Occ3D numbers and
            weights used; True is exact. ``ref2cam``, by which the renderer looks, is always exact, and so are both of camera
            sweeps.
        mask_pattern: Path of the own-car mask of an image below ``data_prefix['mask']``, see ``image_files``; items have
            ``mask_paths`` only with that folder.
        pseudo_pattern: Path of the class map of an image below ``data_prefix['pseudo']``, likewise (``pseudo_paths``).
        backend_args: Arguments of mmengine's file backend for the annotation file.
        **kwargs: Arguments of :class:`FrameDataset` (``pipeline``, ``frames``, ``skip_corrupt``, ...) and of mmengine's
            ``BaseDataset``.

    Raises:
        ValueError: If the grid does not fit the benchmark, or an argument or the annotation file is wrong.
        FileNotFoundError: If there is no annotation file.
    """

    def __init__(
        self,
        ann_file: str,
        grid: VoxelGrid | Mapping[str, Any],
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        cam_names: Sequence[str] | None = None,
        subset: str = 'all',
        ego_motion_compensation: bool = False,
        mask_pattern: str = '{camera}_mask.png',
        pseudo_pattern: str = '{path}_mask.bin',
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        grid = VoxelGrid.build(grid)
        if self.BENCHMARK is not None:
            self.BENCHMARK.check_classes(grid)
        if subset not in ('all', 'mini'):
            raise ValueError(f"dataset.subset must be 'all' or 'mini', got {subset!r}")
        prefix = dict(img='', pts='', occ='')
        unknown = set(data_prefix or {}) - {*prefix, 'mask', 'pseudo'}
        if unknown:
            known = sorted([*prefix, 'mask', 'pseudo'])
            raise ValueError(f'dataset.data_prefix knows the keys {known}, got also {sorted(unknown)}')
        prefix.update({key: value for key, value in (data_prefix or {}).items() if value is not None})
        self.image_maps = dict(mask=mask_pattern, pseudo=pseudo_pattern)
        self.subset = subset
        self.ego_motion_compensation = ego_motion_compensation
        self.backend_args = backend_args
        super().__init__(
            ann_file=ann_file,
            grid=grid,
            data_root=data_root,
            data_prefix=prefix,
            cam_names=NUSCENES_CAMERAS if cam_names is None else cam_names,
            **kwargs,
        )

    def label_path(self, record: FrameRecord) -> str:
        """Path of a frame's label below ``data_prefix['occ']``, '' if it cannot be known."""
        return record.label_path

    def complete(self, record: FrameRecord) -> FrameRecord:
        """The record with what the annotation file lacks and the data set knows, its label's path at least."""
        return replace(record, label_path=self.label_path(record))

    def load_data_list(self) -> list[dict]:
        """Reads the annotation file, takes the subset, and prepares every frame."""
        try:
            info_file = read_info_file(self.ann_file, with_sweeps=self.neighbours == 'sweeps', backend_args=self.backend_args)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"annotation file '{self.ann_file}' does not exist (dataset.ann_file below dataset.data_root); "
                'docs/datasets.md, "Annotation files", lists what can be used and where it comes from'
            ) from None
        order = list(range(len(info_file.records)))
        if self.subset == 'mini':
            order = mini_subset_indices(len(order))
        # the published loader of the files that have keys sorts after it has drawn the subset
        order = sorted(order, key=lambda index: info_file.records[index].sort_key)
        print_log(
            f'{self.ann_file}: {info_file.format} format, {len(info_file.records)} frames, {len(order)} used '
            f'(subset={self.subset!r})',
            logger='current',
            level=logging.INFO,
        )
        for problem in geometry_problems(info_file.records[order[0]]) if order else ():
            print_log(f'{self.ann_file}, first frame: {problem}', logger='current', level=logging.WARNING)
        for key in ('version', 'info_version'):
            if key in info_file.metainfo:
                self._metainfo.setdefault(key, info_file.metainfo[key])
        return self.list_frames([self.complete(record) for record in info_file.records], order)


def scenes_by_token(gts: str) -> dict[str, str]:
    """Sample token -> scene name, by listing ``<gts>/<scene>/<token>``; empty if the folder does not exist."""
    root = Path(gts)
    if not root.is_dir():
        return {}
    return {
        frame.name: scene.name
        for scene in sorted(root.iterdir())
        if scene.is_dir()
        for frame in scene.iterdir()
        if frame.is_dir()
    }
