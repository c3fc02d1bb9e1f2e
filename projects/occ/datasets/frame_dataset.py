"""What the data sets of all benchmarks share: views of several frames, errors that name the frame, an option to pass over
damaged frames."""

import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import TRANSFORMS
from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path
from mmengine.logging import print_log

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import Benchmark
from projects.occ.structures.frame_inputs import frame_inputs, in_reference_of, join_frames, ref2global, sweep_inputs
from projects.occ.structures.frame_record import FrameRecord

from .frame_neighbours import FrameNeighbours
from .image_files import image_files
from .lidar_points import NUSCENES_POINT_DIMS

# With more of them something else is wrong, e.g. a path in the config.
MAX_SKIPPED_SHARE = 0.1
NEIGHBOURS = ('key_frames', 'sweeps')
MISSING_FRAMES = ('repeat', 'skip')


class FrameDataset(BaseDataset):
    """Base of the occupancy data sets.

    A subclass reads its source into :class:`FrameRecord` s and gives them to :meth:`list_frames` in ``load_data_list``. An item
    that reaches the pipeline is the dict that ``projects/occ/structures/frame_inputs.py`` describes.

    With ``frames`` an item holds the views of neighbouring frames too, all on one axis: first those of the key frame, then
    those of the others in the order of ``frames``; ``frame`` says which is which, and ``ref2cam`` of every view maps from the
    reference frame of the *key* frame, with the motion of the vehicle in between. Labels are the key frame's alone.

    An error while a frame is loaded names the frame. What the loading transforms raise for missing or damaged files
    (``OSError`` and ``ValueError`` with the file's name) is passed on as it is; anything else is wrapped.

    Args:
        grid: Fields of :class:`VoxelGrid`, or one.
        pipeline: Transforms, or how to build them.
        cam_names: Cameras to use and their order; None for all of each frame.
        frames: Offsets of the frames whose views an item holds: 0 is the key frame itself and must be among them, -1 the one
            before it, 1 the one after it, and so on.
        neighbours: What an offset counts: ``'key_frames'`` (2 Hz in nuScenes), or ``'sweeps'``, the images that each camera
            takes between the key frames (12 Hz), where the source knows them. Sweeps have no LiDAR file.
        lidar_frames: Offsets of key frames whose LiDAR file an item names beside those of ``frames``, with the poses of their
            cameras but without their images, for ``LoadLidarRays``. Those that do not exist are left out.
        missing_frames: What to do at the ends of a scene and where a frame lacks a pose: ``'repeat'`` puts the key frame's
            views in the place of the missing ones and marks them in ``view_missing``; ``'skip'`` leaves such key frames out of
            the data set (only for training).
        skip_corrupt: Only for training: instead of stopping at a frame whose files are missing or damaged, train on another
            frame, drawn at random, in its place. Each such frame is logged as an error on every rank, once, with its file and
            with the number of frames skipped so far by all workers; ``num_skipped`` is that number. More than one frame and
            more than 10 % of the data set stop the training. Off by default.
        test_mode: As in mmengine.
        **kwargs: Arguments of mmengine's ``BaseDataset``.

    Raises:
        ValueError: If ``skip_corrupt`` or ``missing_frames='skip'`` is set for testing, where it would change the numbers, or
            an argument is wrong.
    """

    # whose grid, classes and label files these are; None for data of one's own
    BENCHMARK: Benchmark | None = None
    # numbers per point in LiDAR files of float32 rows
    POINT_DIMS = NUSCENES_POINT_DIMS
    # between the reference frame and the camera ``ref2img`` is exact
    ego_motion_compensation = True
    # folder in ``data_prefix`` -> path of a map of each of the key frame's images below it, see ``image_files``
    image_maps: Mapping[str, str] = {}

    def __init__(
        self,
        *args,
        grid: VoxelGrid | Mapping[str, Any],
        pipeline: Sequence = (),
        cam_names: Sequence[str] | None = None,
        frames: Sequence[int] = (0,),
        neighbours: str = 'key_frames',
        missing_frames: str = 'repeat',
        lidar_frames: Sequence[int] = (),
        skip_corrupt: bool = False,
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        self.grid = VoxelGrid.build(grid)
        if skip_corrupt and test_mode:
            raise ValueError(
                'dataset.skip_corrupt is for training only: a metric over fewer frames is not comparable. Find the damaged '
                'files with tools/create_data.py ... --check and copy them again (docs/datasets.md, "Checking a data root")'
            )
        self.skip_corrupt = skip_corrupt
        self.cam_names = None if cam_names is None else tuple(cam_names)
        if self.cam_names is not None and (not self.cam_names or len(set(self.cam_names)) != len(self.cam_names)):
            raise ValueError(f'dataset.cam_names must list one or more different cameras, got {self.cam_names}')
        self.frames = _key_frame_first(frames)
        self.lidar_frames = tuple(offset for offset in _offsets(lidar_frames, 'lidar_frames') if offset not in self.frames)
        if self.lidar_frames and neighbours == 'sweeps':
            raise ValueError(
                "dataset.lidar_frames are key frames, so they need neighbours='key_frames'; sweeps have no LiDAR file"
            )
        for key, value, known in (('neighbours', neighbours, NEIGHBOURS), ('missing_frames', missing_frames, MISSING_FRAMES)):
            if value not in known:
                raise ValueError(f'dataset.{key} must be one of {known}, got {value!r}')
        if missing_frames == 'skip' and test_mode and len(self.frames) > 1:
            raise ValueError(
                "dataset.missing_frames='skip' is for training only: a metric over fewer frames is not comparable; use 'repeat'"
            )
        self.neighbours = neighbours
        self.missing_frames = missing_frames
        # built here, so that the data set also works outside a Runner, which sets the default registry scope
        steps = [step if callable(step) else TRANSFORMS.build(step) for step in pipeline]
        super().__init__(*args, pipeline=steps, test_mode=test_mode, **kwargs)
        self._metainfo['grid'] = asdict(self.grid)

    def list_frames(self, records: Sequence[FrameRecord], samples: Sequence[int], step: int = 1) -> list[dict]:
        """What ``load_data_list`` returns.

        Args:
            records: All frames of the source; paths are relative to the folders of ``data_prefix``.
            samples: Which of them are key frames of the data set, in its order.
            step: Difference of ``frame_idx`` between neighbouring key frames.

        Returns:
            One dict per key frame. With neighbours it holds positions in a table that all key frames share.

        Raises:
            ValueError: If a frame lacks a camera or a matrix, or the source does not know neighbours.
        """
        if self.frames == (0,) and not self.lidar_frames:
            return [self.parse_data_info(records[index]) for index in samples]
        views = len(self.frames) - 1
        offsets = self.frames[1:] + self.lidar_frames
        if self.neighbours == 'sweeps':
            return self._list_sweeps(records, samples, offsets)
        finder = FrameNeighbours(records, step, self._origin)
        rows = {index: [finder.find(index, offset) for offset in offsets] for index in samples}
        poses = {
            index: ref2global(records[index], self.grid.frame)
            for row in rows.items()
            for index in (row[0], *row[1])
            if index is not None
        }
        if self.lidar_frames and poses and all(pose is None for pose in poses.values()):
            raise ValueError(
                f'{self._origin}: its frames have no pose of the vehicle (ego2global), so the rays of other frames that '
                'dataset.lidar_frames asks for cannot be placed; use an annotation file with poses, or lidar_frames=()'
            )
        for index, row in rows.items():
            rows[index] = [
                other if other is not None and poses[index] is not None and poses[other] is not None else None for other in row
            ]
        kept = self._without_missing(samples, {index: None in row[:views] for index, row in rows.items()})
        used = sorted({index for key in kept for index in (key, *rows[key]) if index is not None})
        position = {index: number for number, index in enumerate(used)}
        self._table = _Table({**self.parse_data_info(records[index]), 'ref2global': poses[index]} for index in used)
        return [
            dict(key=position[index], others=[None if other is None else position[other] for other in rows[index]])
            for index in kept
        ]

    def _list_sweeps(self, records: Sequence[FrameRecord], samples: Sequence[int], offsets: Sequence[int]) -> list[dict]:
        if not any(record.sweeps for record in records):
            raise ValueError(
                f"{self._origin}: it knows no camera sweeps, which dataset.neighbours='sweeps' asks for; make the file with "
                "tools/create_data.py ... --camera-sweeps 1, or use neighbours='key_frames' (docs/datasets.md, \"Neighbouring "
                'frames")'
            )
        items, lacking = {}, {}
        for index in samples:
            record = records[index]
            key = self._inputs(record)
            others = [(offset, sweep_inputs(key, record, offset, self.grid.frame)) for offset in offsets]
            lacking[index] = any(other is None or other['view_missing'].any() for _, other in others)
            items[index] = self._with_folders(join_frames(key, others))
        return [items[index] for index in self._without_missing(samples, lacking)]

    def _without_missing(self, samples: Sequence[int], lacking: Mapping[int, bool]) -> list[int]:
        """The key frames to use; says how many lack a neighbour."""
        count = sum(lacking[index] for index in samples)
        skip = self.missing_frames == 'skip'
        print_log(
            f'frames={self.frames} ({self.neighbours}): {count} of {len(samples)} key frames lack one, '
            + ('they are left out' if skip else 'their own views stand in for it'),
            logger='current',
            level=logging.INFO,
        )
        if skip and count == len(samples) > 0:
            raise ValueError(
                f"dataset.missing_frames='skip' leaves no key frame over: none of {len(samples)} has all of "
                f"frames={self.frames}; ask for other frames, or use 'repeat'"
            )
        return [index for index in samples if not (skip and lacking[index])]

    @property
    def _origin(self) -> str:
        return getattr(self, 'ann_file', '') or type(self).__name__

    def parse_data_info(self, raw_data_info: FrameRecord) -> dict:
        """The views of one frame.

        Raises:
            ValueError: If the frame lacks a camera of ``cam_names``, or what a matrix is made of.
        """
        return self._with_folders(self._inputs(raw_data_info))

    def _inputs(self, record: FrameRecord) -> dict:
        try:
            inputs = frame_inputs(record, self.grid.frame, self.cam_names, self.ego_motion_compensation)
            for key, pattern in self.image_maps.items():
                if key in self.data_prefix:
                    files = image_files(self.data_prefix[key], pattern, record)
                    inputs[f'{key}_paths'] = [files[name] for name in inputs['cam_names']]
        except ValueError as error:
            raise ValueError(f'{self._origin}: {error}') from None
        return inputs

    def _with_folders(self, inputs: dict) -> dict:
        """Puts the folders of ``data_prefix`` before paths."""
        folder = self.data_prefix
        for key, prefix in (('img_paths', 'img'), ('depth_paths', 'depth')):
            if key in inputs:
                inputs[key] = [join_path(folder[prefix], path) for path in inputs[key]]
        for key, prefix in (('lidar_path', 'pts'), ('occ_path', 'occ')):
            if inputs.get(key):
                inputs[key] = join_path(folder[prefix], inputs[key])
        for scan in inputs.get('lidar_frames', ()):
            for key, prefix in (('lidar_path', 'pts'), ('lidarseg_path', 'pts'), ('occ_path', 'occ')):
                scan[key] = scan[key] and join_path(folder[prefix], scan[key])
            scan['img_paths'] = inputs.get('img_paths', scan['img_paths'])[: len(scan['cam_names'])]
        return inputs

    def get_data_info(self, idx: int) -> dict:
        """One item as the pipeline gets it."""
        info = super().get_data_info(idx)
        if 'others' in info:
            info = {**self._joined(info['key'], info['others']), 'sample_idx': info['sample_idx']}
        info['grid'] = self.grid
        info['label_masks'] = None if self.BENCHMARK is None else self.BENCHMARK.label_masks
        return info

    def _joined(self, key: int, others: Sequence[int | None]) -> dict:
        inputs = self._table[key]
        neighbours = []
        pose = inputs.pop('ref2global')
        for offset, other in zip(self.frames[1:] + self.lidar_frames, others, strict=True):
            if other is None:
                neighbours.append((offset, None))
                continue
            views = self._table[other]
            neighbours.append((offset, in_reference_of(views, np.linalg.inv(views.pop('ref2global')) @ pose)))
        views = len(self.frames) - 1
        return join_frames(inputs, neighbours[:views], neighbours[views:])

    def full_init(self) -> None:
        """Loads the annotations, as in mmengine."""
        if self._fully_initialized:
            return
        super().full_init()
        # in shared memory, so that all workers of a rank count together
        self._skipped = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    @property
    def num_skipped(self) -> int:
        """Number of different frames that this rank has skipped so far."""
        return int(self._skipped.sum())

    def prepare_data(self, idx: int) -> dict | None:
        """Loads one frame.

        Returns:
            What the pipeline makes of it; None if it is damaged and ``skip_corrupt`` is set, which makes mmengine draw another.

        Raises:
            OSError, ValueError: If a file is missing or damaged.
            RuntimeError: If anything else goes wrong, or too many frames had to be skipped.
        """
        info = self.get_data_info(idx)
        # the pipeline may change info, so the name is taken before
        what = f'frame {info.get("token", idx)} (item {idx} of {getattr(self, "ann_file", "") or type(self).__name__})'
        try:
            return self.pipeline(info)
        except (OSError, ValueError) as error:
            if not self.skip_corrupt:
                raise
            self._note_skipped(idx, what, error)
            return None
        except Exception as error:
            raise RuntimeError(f'{what}: {type(error).__name__}: {error}') from error

    def _note_skipped(self, idx: int, what: str, error: Exception) -> None:
        if self._skipped[idx]:
            return
        self._skipped[idx] = 1
        count, total = self.num_skipped, len(self)
        # mmengine shows less than errors on the main rank only
        print_log(
            f'skip_corrupt: skipped {what}, {count} of {total} frames so far: {error}', logger='current', level=logging.ERROR
        )
        if count > max(1, MAX_SKIPPED_SHARE * total):
            raise RuntimeError(
                f'dataset.skip_corrupt skipped {count} of {total} frames, more than {MAX_SKIPPED_SHARE:.0%}, so this is not '
                'about single files; check the paths in the config, or the whole tree with tools/create_data.py ... --check. '
                f'The last one, {what}: {error}'
            ) from error


class _Table:
    """Dicts packed into one array, so that processes forked from this one share them."""

    def __init__(self, rows) -> None:
        packed = [pickle.dumps(row, protocol=4) for row in rows]
        self._ends = np.cumsum([len(row) for row in packed])
        self._bytes = np.frombuffer(b''.join(packed), dtype=np.uint8)

    def __getitem__(self, index: int) -> dict:
        start = 0 if index == 0 else self._ends[index - 1]
        return pickle.loads(memoryview(self._bytes)[start : self._ends[index]])


def _key_frame_first(frames: Sequence[int]) -> tuple[int, ...]:
    given = _offsets(frames, 'frames')
    if 0 not in given:
        raise ValueError(
            f'dataset.frames must be different whole numbers with 0, the key frame, among them, e.g. (-1, 0, 1); got {frames!r}'
        )
    return (0, *(offset for offset in given if offset != 0))


def _offsets(frames: Sequence[int], key: str) -> list[int]:
    given = [frames] if isinstance(frames, (str, int)) else list(frames)
    whole = all(isinstance(offset, int) and not isinstance(offset, bool) for offset in given)
    if not whole or len(set(given)) != len(given):
        raise ValueError(f'dataset.{key} must be different whole numbers, e.g. (-1, 0, 1); got {frames!r}')
    return given
