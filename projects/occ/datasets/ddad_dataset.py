"""DDAD: six cameras at 10 Hz, LiDAR, no occupancy labels."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mmdet3d.registry import DATASETS
from mmengine.fileio import get_text, join_path
from mmengine.logging import print_log

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES, NUSCENES_COLORS
from projects.occ.structures.frame_record import FrameRecord

from .dgp_scenes import DDAD_CAMERAS, DDAD_FILE, SPLIT_KEYS, SceneReader, read_dgp_json, scene_files
from .frame_dataset import FrameDataset
from .info_formats import read_info_file


@DATASETS.register_module()
class DDADDataset(FrameDataset):
    """Frames of DDAD, read from its own scene files or from an annotation file made of them.

    A frame's token is ``<scene>_<number in the scene>``. The reference frame is the vehicle (x ahead, y left, z up) when the
    LiDAR was read. There are no occupancy labels; classes are those of Occ3D, into which class maps of images are translated.
    With the folders of ``data_prefix`` an item also has ``mask_paths`` and ``pseudo_paths``, one path per image of the key
    frame, for ``LoadSelfOcclusionMasks`` and ``LoadPseudoLabels``.

    Args:
        grid: Fields of :class:`VoxelGrid`, or one; ``frame='ego'``.
        ann_file: ``ddad.json`` or ``ddad_infos_<split>.pkl`` of ``tools/create_data.py ddad``, relative to ``data_root``.
        data_root: Folder of ``ddad.json``.
        data_prefix: Folders below ``data_root``, or absolute ones: ``img`` and ``pts`` (the root itself by default), ``mask``
            and ``pseudo`` (none by default).
        split: Which scenes of ``ddad.json`` to read, ``'train'``, ``'val'`` or ``'test'``.
        cam_names: Cameras and their order; by default all six around the vehicle, from the front counter-clockwise.
        frame_list: File below ``data_root`` with one frame a line, a token or the name of an image without its ending: only
            these, in this order, repetitions kept, as in the authors' lists. None: every frame once.
        max_gap: Frames that lie farther apart are no neighbours, seconds; None: all consecutive frames of a scene are.
        ego_motion_compensation: Whether ``ref2img``, by which the network samples its images, takes the motion between LiDAR
            and cameras into account. The original places all cameras by their mounting alone (False).
        mask_pattern: Path of a mask below its folder, with ``{scene}``, ``{camera}`` and ``{image}``.
        pseudo_pattern: Path of a class map below its folder, likewise.
        backend_args: Arguments of mmengine's file backend for the scene files.
        **kwargs: Arguments of :class:`FrameDataset` (``pipeline``, ``frames``, ``skip_corrupt``, ...) and of mmengine's
            ``BaseDataset``.

    Raises:
        ValueError: If an argument is wrong, a scene is damaged, or the list names a frame that is not there.
        FileNotFoundError: If a file is missing.
    """

    METAINFO = dict(
        dataset='ddad',
        classes=('others', *NUSCENES_CLASSES, 'free'),
        palette=((0, 0, 0), *NUSCENES_COLORS.values(), (0, 255, 127)),
    )

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        ann_file: str = DDAD_FILE,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        split: str = 'train',
        cam_names: Sequence[str] | None = None,
        frame_list: str | None = None,
        max_gap: float | None = None,
        ego_motion_compensation: bool = True,
        mask_pattern: str = '{camera}/{scene}/mask.png',
        pseudo_pattern: str = '{scene}/{camera}/{image}_mask.bin',
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        grid = VoxelGrid.build(grid)
        if grid.frame != 'ego':
            raise ValueError(f"{type(self).__name__}: DDAD's vehicle frame is grid.frame = 'ego', got {grid.frame!r}")
        if split not in SPLIT_KEYS:
            raise ValueError(f'dataset.split must be one of {tuple(SPLIT_KEYS)}, got {split!r}')
        prefix = dict(img='', pts='')
        unknown = set(data_prefix or {}) - {*prefix, 'mask', 'pseudo'}
        if unknown:
            known = sorted([*prefix, 'mask', 'pseudo'])
            raise ValueError(f'dataset.data_prefix knows the keys {known}, got also {sorted(unknown)}')
        prefix.update({key: value for key, value in (data_prefix or {}).items() if value is not None})
        self.split = split
        self.frame_list = frame_list
        self.max_gap = max_gap
        self.ego_motion_compensation = ego_motion_compensation
        self.image_maps = dict(mask=mask_pattern, pseudo=pseudo_pattern)
        self.backend_args = backend_args
        super().__init__(
            ann_file=ann_file,
            grid=grid,
            data_root=data_root,
            data_prefix=prefix,
            cam_names=DDAD_CAMERAS if cam_names is None else cam_names,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Reads all scenes of the split, or the annotation file."""
        if self.ann_file.endswith('.json'):
            dataset = read_dgp_json(self.ann_file, 'data set', self.backend_args)
            reader = SceneReader(self.data_root, self.cam_names, self.backend_args)
            scenes = scene_files(dataset, self.split, self.ann_file)
            records = [record for scene in scenes for record in reader.read(scene)]
        else:
            records = read_info_file(self.ann_file, backend_args=self.backend_args).records
        if self.max_gap is not None:
            self._part(records)
        samples = range(len(records)) if self.frame_list is None else self._listed(records)
        print_log(f'{self.ann_file}: {len(records)} frames, {len(samples)} used', logger='current', level=logging.INFO)
        return self.list_frames(records, samples)

    def _part(self, records: Sequence[FrameRecord]) -> None:
        """Ends a scene where the next frame comes too late."""
        part = 0
        for before, after in zip(records, records[1:]):
            if before.next == after.token and after.timestamp - before.timestamp > self.max_gap:
                before.next = after.prev = ''
                part += 1
            # frames without any link are found by the name of their scene
            after.scene_token = f'{after.scene_name}/{part}'

    def _listed(self, records: Sequence[FrameRecord]) -> list[int]:
        path = join_path(self.data_root, self.frame_list)
        names = get_text(path, backend_args=self.backend_args).split()
        index = {PurePosixPath(c.img_path).stem: i for i, record in enumerate(records) for c in record.cameras.values()}
        index.update({record.token: i for i, record in enumerate(records)})
        unknown = [name for name in names if name not in index]
        if unknown or not names:
            raise ValueError(
                f"dataset.frame_list '{path}': {len(unknown)} of its {len(names)} frames are not among the {len(records)} of "
                f'{self.ann_file}, the first is {unknown[:1]}'
            )
        return [index[name] for name in names]
