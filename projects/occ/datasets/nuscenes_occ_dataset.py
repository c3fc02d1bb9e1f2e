"""What the two nuScenes occupancy benchmarks have in common."""

import logging
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import join_path
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


class NuScenesOccDataset(FrameDataset):
    """Key frames of nuScenes with an occupancy label each; base of the two benchmarks.

    An item that reaches the pipeline is a dict (N cameras in the order of ``cam_names``; matrices float64, metres, pixels):
    ``token``, ``scene_name``, ``frame_idx``, ``timestamp`` (s), ``cam_names``, ``img_paths`` (N), ``cam2img`` (N, 3, 3),
    ``ref2cam`` (N, 4, 4), ``ref2img`` (N, 4, 4) into the original image, ``lidar2ego`` (4, 4), ``ego2global`` (4, 4),
    ``lidar_path``, ``occ_path``, ``grid`` (:class:`VoxelGrid`) and ``sample_idx``. The reference frame is ``grid.frame``.

    Args:
        ann_file: Annotation pickle, relative to ``data_root``; any format of ``info_formats.py``.
        grid: Fields of :class:`VoxelGrid`, or one.
        data_root: Root folder of everything else.
        data_prefix: Folders below ``data_root``: ``img`` and ``pts`` hold ``samples/<sensor>/``, ``occ`` holds the labels.
        pipeline: Transforms.
        cam_names: Cameras to use and their order; None for the six of nuScenes.
        subset: ``'all'``, or ``'mini'`` for the 20 % subset of the published ablations.
        ego_motion_compensation: Only for grids in the ego frame: whether ``ref2img``, by which the network samples its images,
            takes the ego motion between LiDAR and camera time into account. False is what the published Occ3D numbers and
            weights used; True is exact. ``ref2cam``, by which the renderer looks, is always exact.
        test_mode: As in mmengine.
        backend_args: Arguments of mmengine's file backend for the annotation file.
        **kwargs: Arguments of :class:`FrameDataset` (``skip_corrupt``) and of mmengine's ``BaseDataset``.

    Raises:
        ValueError: If the grid does not fit the benchmark, or an argument or the annotation file is wrong.
        FileNotFoundError: If there is no annotation file.
    """

    LABEL_FRAME: str
    FREE_INDEX: int
    BENCHMARK: str

    def __init__(
        self,
        ann_file: str,
        grid: VoxelGrid | Mapping[str, Any],
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        pipeline: Sequence = (),
        cam_names: Sequence[str] | None = None,
        subset: str = 'all',
        ego_motion_compensation: bool = False,
        test_mode: bool = False,
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        self.grid = VoxelGrid.build(grid)
        self._check_grid()
        if subset not in ('all', 'mini'):
            raise ValueError(f"dataset.subset must be 'all' or 'mini', got {subset!r}")
        prefix = dict(img='', pts='', occ='')
        unknown = set(data_prefix or {}) - set(prefix)
        if unknown:
            raise ValueError(f'dataset.data_prefix knows the keys {sorted(prefix)}, got also {sorted(unknown)}')
        prefix.update(data_prefix or {})
        self.cam_names = tuple(NUSCENES_CAMERAS if cam_names is None else cam_names)
        if not self.cam_names or len(set(self.cam_names)) != len(self.cam_names):
            raise ValueError(f'dataset.cam_names must list one or more different cameras, got {self.cam_names}')
        self.subset = subset
        self.ego_motion_compensation = ego_motion_compensation
        self.backend_args = backend_args
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=prefix,
            pipeline=pipeline,
            test_mode=test_mode,
            **kwargs,
        )
        self._metainfo['grid'] = asdict(self.grid)

    def _check_grid(self) -> None:
        classes = len(self.METAINFO['classes'])
        for key, found, expected in (
            ('frame', self.grid.frame, self.LABEL_FRAME),
            ('free_index', self.grid.free_index, self.FREE_INDEX),
            ('class_names', self.grid.num_classes, classes),
        ):
            if found != expected:
                what = f'{found} class names' if key == 'class_names' else repr(found)
                raise ValueError(
                    f'{type(self).__name__}: {self.BENCHMARK} labels need grid.{key} '
                    f'{"with " + str(expected) + " entries" if key == "class_names" else "= " + repr(expected)}, got {what}; '
                    'take the grid of the matching file in configs/_base_/datasets'
                )

    @abstractmethod
    def label_path(self, record: FrameRecord) -> str:
        """Path of a frame's label below ``data_prefix['occ']``, '' if it cannot be known."""

    def load_data_list(self) -> list[dict]:
        """Reads the annotation file, takes the subset, and prepares every frame."""
        try:
            info_file = read_info_file(self.ann_file, backend_args=self.backend_args)
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
        return [self.parse_data_info(info_file.records[index]) for index in order]

    def parse_data_info(self, raw_data_info: FrameRecord) -> dict:
        """Paths and matrices of one frame, see the class.

        Raises:
            ValueError: If the frame lacks a camera of ``cam_names``, or what a matrix is made of.
        """
        record = raw_data_info
        missing = [name for name in self.cam_names if name not in record.cameras]
        if missing:
            raise ValueError(
                f"{self.ann_file}: frame {record.token} has no camera '{missing[0]}'; present: {sorted(record.cameras)}. Set "
                'dataset.cam_names to the cameras of your vehicle'
            )
        cameras = [record.cameras[name] for name in self.cam_names]
        cam2img = np.stack([camera.cam2img for camera in cameras])
        lidar2cam = np.stack([camera.lidar2cam for camera in cameras])
        ref2cam = lidar2cam @ np.linalg.inv(record.lidar2ego) if self.grid.frame == 'ego' else lidar2cam
        network_ref2cam = ref2cam
        if self.grid.frame == 'ego' and not self.ego_motion_compensation:
            network_ref2cam = np.stack([self._mounting(record, name) for name in self.cam_names])
        ref2img = network_ref2cam.copy()
        ref2img[:, :3] = cam2img @ network_ref2cam[:, :3]
        label = self.label_path(record)
        return dict(
            token=record.token,
            scene_name=record.scene_name,
            frame_idx=record.frame_idx,
            timestamp=record.timestamp,
            cam_names=list(self.cam_names),
            img_paths=[join_path(self.data_prefix['img'], camera.img_path) for camera in cameras],
            cam2img=cam2img,
            ref2cam=ref2cam,
            ref2img=ref2img,
            lidar2ego=record.lidar2ego,
            ego2global=record.ego2global,
            lidar_path=join_path(self.data_prefix['pts'], record.lidar_path),
            occ_path=join_path(self.data_prefix['occ'], label) if label else '',
        )

    def get_data_info(self, idx: int) -> dict:
        """One frame as the pipeline gets it."""
        info = super().get_data_info(idx)
        info['grid'] = self.grid
        return info

    def _mounting(self, record: FrameRecord, name: str) -> np.ndarray:
        cam2ego = record.cameras[name].cam2ego
        if cam2ego is None:
            raise ValueError(
                f'{self.ann_file}: frame {record.token} has no camera-to-ego matrix for {name}, which the projection without '
                'ego motion compensation is made of (SparseOcc-style files lack it); set dataset.ego_motion_compensation=True '
                'or use another annotation file'
            )
        return np.linalg.inv(cam2ego)


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
