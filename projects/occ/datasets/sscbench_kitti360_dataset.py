"""SSCBench-KITTI-360."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS
from mmengine.fileio import exists, get, join_path, list_dir_or_file
from mmengine.logging import print_log

from projects.occ.image_files import ImageError, image_size
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.structures.frame_record import CameraRecord, FrameRecord

from .frame_dataset import FrameDataset
from .kitti360_labels import LABEL_SUFFIX, warn_if_upper_classes_miss
from .kitti360_poses import read_poses
from .kitti_calibration import VelodyneCamera, read_frame_map, read_kitti360_calibration
from .label_formats import read_label
from .lidar_points import KITTI_POINT_DIMS

# Sequence numbers of each split, in the benchmark's order.
SPLITS: dict[str, tuple[int, ...]] = {'train': (4, 0, 10, 2, 3, 5, 7), 'val': (6,), 'test': (9,)}
SPLITS['trainval'] = SPLITS['train'] + SPLITS['val']

CAMERA = 'image_00'
# Published calibration of image_00 (rectified), one for all sequences: width and height, pixels; intrinsics; camera ->
# Velodyne, metres. It leaves out KITTI-360's rectifying rotation R_rect_00 (docs/datasets.md says what that amounts to);
# weights and numbers of others depend on it.
IMAGE_WH = (1408, 376)
CAM2IMG = ((552.554261, 0.0, 682.049453), (0.0, 552.554261, 238.769549), (0.0, 0.0, 1.0))
CAM2VELO = (
    (0.04307104361, -0.08829286498, 0.995162929, 0.8043914418),
    (-0.999004371, 0.007784614041, 0.04392796942, 0.2993489574),
    (-0.01162548558, -0.9960641394, -0.08786966659, -0.1770225824),
    (0.0, 0.0, 0.0, 1.0),
)

_HOW = 'docs/datasets.md, "SSCBench-KITTI-360"'


def sequence_name(number: int) -> str:
    """Folder of a drive, e.g. ``2013_05_28_drive_0009_sync``."""
    return f'2013_05_28_drive_{number:04d}_sync'


def published_calibration() -> VelodyneCamera:
    """The camera as the published codes have it."""
    return VelodyneCamera(IMAGE_WH, np.array(CAM2IMG), np.linalg.inv(np.array(CAM2VELO)))


@DATASETS.register_module()
class SSCBenchKITTI360Dataset(FrameDataset):
    """Frames of SSCBench-KITTI-360: one camera, labels in the Velodyne frame, class 0 is empty, 255 is ignored.

    There is no annotation file. The frames are those with ``<voxels>/<sequence>/voxels/<frame>.bin``, sorted by name, sequence
    by sequence; these files are not read. The image of a frame is ``<img>/<sequence>/image_00/data_rect/<frame>.png``, its
    label ``<occ>/<sequence>/<frame>_1_1.npy``, which ``LoadSSCBenchLabels`` loads, its depth map
    ``<depth>/<sequence>/<frame>.npy``, for ``LoadDepthMaps``.

    A frame's token is ``<sequence>_<frame>``, its ``scene_name`` the sequence, its ``frame_idx`` the number of the frame. By
    definition the ego frame is the Velodyne's (``lidar2ego`` is the identity). There is no ``ego2global`` without ``poses``,
    and no ``lidar_path`` unless ``data_prefix`` has ``pts``; then it is ``<pts>/<sequence>/velodyne_points/data/<frame>.bin``.

    Neighbouring frames need ``poses``. Key frames are ``frame_stride`` apart (half a second); with ``neighbours='sweeps'`` an
    offset counts images of KITTI-360 (10 Hz), those between the key frames included.

    Args:
        grid: Fields of :class:`VoxelGrid`, or one.
        data_root: Root folder.
        data_prefix: Folders below ``data_root``: ``img`` and ``voxels`` (default ``data_2d_raw``), ``occ``
            (``preprocess/labels``), ``depth`` (``depth``), and ``pts`` (none) where LiDAR sweeps are at hand.
        split: ``'train'``, ``'val'``, ``'test'`` or ``'trainval'``.
        sequences: Numbers of the drives to take instead of the split's.
        calibration: Folder below ``data_root`` with KITTI-360's ``perspective.txt`` and ``calib_cam_to_velo.txt``. None for the
            published calibration, which is what others' weights and numbers go with; the files say the same but for the
            rectifying rotation, which they add.
        frame_map: File below ``data_root`` that tells the frame of KITTI-360 for each one of SSCBench
            (``kitti_360_match.txt``), by which the sweeps are found. None if their files are numbered as in SSCBench.
        poses: Folder below ``data_root`` with ``<sequence>.npz``, made by ``tools/create_data.py sscbench-kitti360``; then
            ``ego2global`` is the Velodyne's pose in the world, for the frames that KITTI-360 has one of.
        frame_stride: The benchmark uses every fifth frame; a frame whose number it does not divide is refused.
        backend_args: Arguments of mmengine's file backend for listing folders.
        **kwargs: Arguments of :class:`FrameDataset` (``pipeline``, ``frames``, ``skip_corrupt``, ...) and of mmengine's
            ``BaseDataset``.

    Raises:
        ValueError: If the grid does not fit the benchmark, an argument is wrong, or the folders hold other frames or images
            than the benchmark's.
        FileNotFoundError: If a sequence of the split, a calibration file or the frame map is missing.
    """

    BENCHMARK = BENCHMARKS['sscbench-kitti360']
    METAINFO = BENCHMARK.metainfo
    POINT_DIMS = KITTI_POINT_DIMS

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        split: str = 'train',
        sequences: Sequence[int] | None = None,
        calibration: str | None = None,
        frame_map: str | None = None,
        poses: str | None = None,
        frame_stride: int = 5,
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        grid = VoxelGrid.build(grid)
        self.BENCHMARK.check_classes(grid)
        if split not in SPLITS:
            raise ValueError(f'dataset.split must be one of {sorted(SPLITS)}, got {split!r}')
        if not isinstance(frame_stride, int) or frame_stride < 1:
            raise ValueError(f'dataset.frame_stride must be a positive whole number, got {frame_stride!r}')
        prefix = dict(img='data_2d_raw', voxels='data_2d_raw', occ='preprocess/labels', depth='depth')
        unknown = set(data_prefix or {}) - {*prefix, 'pts'}
        if unknown:
            raise ValueError(f'dataset.data_prefix knows the keys {sorted([*prefix, "pts"])}, got also {sorted(unknown)}')
        prefix.update(data_prefix or {})
        known = sorted(SPLITS['trainval'] + SPLITS['test'])
        if sequences is not None and (not sequences or not set(sequences) <= set(known)):
            raise ValueError(
                f'dataset.sequences must be numbers of drives among {known}, or None for the split, got {sequences}'
            )
        self.split = split
        self.sequences = SPLITS[split] if sequences is None else tuple(sequences)
        self.calibration = calibration
        self.frame_map = frame_map
        self.poses = poses
        self.frame_stride = frame_stride
        self.backend_args = backend_args
        super().__init__(grid=grid, data_root=data_root, data_prefix=prefix, cam_names=(CAMERA,), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Lists the frames of the split and looks at a few of their files."""
        if self.poses is None and (len(self.frames) > 1 or self.lidar_frames):
            which = f'frames={self.frames}' if len(self.frames) > 1 else f'lidar_frames={self.lidar_frames}'
            raise ValueError(
                f'dataset.{which} needs the poses of the drives: make them with tools/create_data.py '
                f"sscbench-kitti360 --kitti360 and set dataset.poses='poses' ({_HOW})"
            )
        if self.calibration is None:
            self.camera = published_calibration()
        else:
            self.camera = read_kitti360_calibration(join_path(self.data_root, self.calibration), self.backend_args)
        path = self.frame_map and join_path(self.data_root, self.frame_map)
        raw_frames = read_frame_map(path, self.backend_args) if path else None
        records = []
        for sequence in map(sequence_name, self.sequences):
            frames = self._frames(sequence)
            poses = self._poses(sequence)
            records += [self._record(sequence, frame, raw_frames, poses) for frame in frames]
            if self.neighbours == 'sweeps' and len(self.frames) > 1:
                self._add_sweeps(sequence, records[-len(frames) :], poses)
        data_list = self.list_frames(records, range(len(records)), self.frame_stride)
        checked = [self.parse_data_info(records[index]) for index in (0, len(records) // 2, -1)]
        if self.sequences == SPLITS[self.split]:
            counts = ' or '.join(map(str, self.BENCHMARK.frame_counts(self.split)))
            what = f'{self.split}: {len(records)} frames (the published split has {counts})'
        else:
            what = f'drives {list(self.sequences)}: {len(records)} frames'
        print_log(f'SSCBench-KITTI-360 {what}', logger='current', level=logging.INFO)
        self._check_image_size(checked[0])
        self._check_classes(checked)
        return data_list

    def _poses(self, sequence: str) -> dict[int, np.ndarray]:
        if self.poses is None:
            return {}
        return read_poses(join_path(self.data_root, self.poses, f'{sequence}.npz'))

    def _frames(self, sequence: str) -> list[str]:
        folder = join_path(self.data_prefix['voxels'], sequence, 'voxels')
        try:
            files = list(list_dir_or_file(folder, list_dir=False, suffix='.bin', backend_args=self.backend_args))
        except (FileNotFoundError, NotADirectoryError):
            files = []
        if not files:
            raise FileNotFoundError(
                f"sequence {sequence} of split '{self.split}': folder '{folder}' is missing or has no <frame>.bin; check "
                f"dataset.data_root and dataset.data_prefix['voxels'] ({_HOW})"
            )
        frames = sorted(file.removesuffix('.bin') for file in files)
        for frame in frames:
            if re.fullmatch('[0-9]{6}', frame) is None:
                raise ValueError(
                    f"'{join_path(folder, frame + '.bin')}': frames of SSCBench have six digits; files named otherwise are "
                    "KITTI-360's own or do not belong here"
                )
            if int(frame) % self.frame_stride:
                raise ValueError(
                    f"'{join_path(folder, frame + '.bin')}': {int(frame)} is no multiple of "
                    f'dataset.frame_stride={self.frame_stride} (the benchmark uses every fifth frame), so '
                    'other frames have got into the folder; remove them, or set dataset.frame_stride=1 for frames of your own'
                )
        return frames

    def _record(
        self,
        sequence: str,
        frame: str,
        raw_frames: dict[tuple[str, str], str] | None,
        poses: Mapping[int, np.ndarray],
    ) -> FrameRecord:
        lidar_path = ''
        if 'pts' in self.data_prefix:
            raw = frame if raw_frames is None else raw_frames.get((sequence, frame))
            if raw is None:
                raise ValueError(
                    f"'{self.frame_map}' has no row for frame {frame} of {sequence}; it belongs to another release ({_HOW})"
                )
            lidar_path = f'{sequence}/velodyne_points/data/{raw}.bin'
        return FrameRecord(
            token=f'{sequence}_{frame}',
            scene_name=sequence,
            frame_idx=int(frame),
            lidar_path=lidar_path,
            lidar2ego=np.eye(4),
            ego2global=poses.get(int(frame)),
            cameras={CAMERA: self._camera(sequence, frame, self.camera.ref2cam)},
            label_path=f'{sequence}/{frame}{LABEL_SUFFIX}',
        )

    def _camera(self, sequence: str, frame: str, lidar2cam: np.ndarray) -> CameraRecord:
        return CameraRecord(
            img_path=f'{sequence}/{CAMERA}/data_rect/{frame}.png',
            cam2img=self.camera.cam2img,
            lidar2cam=lidar2cam,
            depth_path=f'{sequence}/{frame}.npy',
            image_wh=self.camera.image_wh,
        )

    def _add_sweeps(self, sequence: str, records: Sequence[FrameRecord], poses: Mapping[int, np.ndarray]) -> None:
        """Puts the images of the asked offsets into the records, where there are an image and a pose."""
        folder = join_path(self.data_prefix['img'], sequence, CAMERA, 'data_rect')
        images = set(list_dir_or_file(folder, list_dir=False, suffix='.png', backend_args=self.backend_args))
        for record in records:
            pose = record.ego2global
            for offset in self.frames[1:]:
                number = record.frame_idx + offset
                frame = f'{number:06d}'
                if pose is None or number not in poses or f'{frame}.png' not in images:
                    continue
                lidar2cam = self.camera.ref2cam @ np.linalg.inv(poses[number]) @ pose
                record.sweeps[offset] = {CAMERA: self._camera(sequence, frame, lidar2cam)}

    def _check_image_size(self, info: dict) -> None:
        """The calibration is for one image size. A missing or damaged image is left to the transform that loads it."""
        path = info['img_paths'][0]
        if not exists(path, backend_args=self.backend_args):
            return
        try:
            found = image_size(get(path, backend_args=self.backend_args))
        except ImageError:
            return
        width, height = self.camera.image_wh
        if found != (width, height):
            raise ValueError(
                f"'{path}' has {found[0]} x {found[1]} pixels, but the calibration is for the rectified images of "
                f'{width} x {height}; resize in the pipeline (ResizeCropFlipImages), not on disk'
            )

    def _check_classes(self, infos: Sequence[dict]) -> None:
        """Looks for labels that were made with another data set's map, in the frames that have one.

        With ``skip_corrupt`` a damaged label is passed over: its frame is skipped and reported when training draws it.
        """
        counts = np.zeros(256, dtype=np.int64)
        for info in infos:
            if not exists(info['occ_path'], backend_args=self.backend_args):
                continue
            try:
                what = f'label of frame {info["token"]}'
                labels, _ = read_label(info['occ_path'], self.grid, what, backend_args=self.backend_args)
            except (OSError, ValueError):
                if not self.skip_corrupt:
                    raise
                continue
            counts += np.bincount(labels.reshape(-1), minlength=256)
        warn_if_upper_classes_miss(counts, f"first, middle and last label of split '{self.split}'")
