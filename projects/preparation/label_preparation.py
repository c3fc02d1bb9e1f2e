"""Makes labels of many frames from LiDAR points and boxes and writes them in a benchmark's format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from projects.occ.datasets.label_formats import read_label
from projects.occ.evaluation.functional import summarize_confusion, voxel_confusion
from projects.occ.structures import VoxelGrid
from projects.occ.structures.frame_record import FrameRecord, occ3d_label_path, surroundocc_label_path
from projects.preparation.label_aggregation import LidarFrame, SceneAggregator
from projects.preparation.label_files import write_occ3d_label, write_surroundocc_label
from projects.preparation.label_making import LabelSettings, OccLabel, make_label, transform

from .label_sources import LabelScene
from .parallel import map_jobs


@dataclass
class LabelReport:
    """What was made.

    Attributes:
        frames: Number of labels.
        counts: (C,) int64, voxels by class.
        seen_lidar, seen_camera: Numbers of voxels in ``mask_lidar`` and ``mask_camera``.
        own_points: Points of the key frames that have a class, lie in the grid and are not the ego vehicle's.
        own_agree: Those of them whose voxel has their class.
        own_occupied: Those of them whose voxel is not free.
        confusion: (C, C) int64 against other labels, rows are those; zero if none were given.
    """

    frames: int
    counts: np.ndarray
    seen_lidar: int
    seen_camera: int
    own_points: int
    own_agree: int
    own_occupied: int
    confusion: np.ndarray

    def __add__(self, other: 'LabelReport') -> 'LabelReport':
        return LabelReport(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def compared(self, grid: VoxelGrid) -> dict | None:
        """mIoU, IoU and so on of the made labels against the others, None if there were none."""
        return summarize_confusion(self.confusion, grid.free_index) if self.confusion.any() else None


@dataclass
class _Job:
    """One scene; its frames share what is read."""

    scene: LabelScene
    grid: VoxelGrid
    out: Path
    window: int | None
    image_wh: tuple[int, int]
    settings: LabelSettings
    compare: Path | None
    show: bool


def make_labels(
    scenes: Sequence[LabelScene],
    grid: VoxelGrid,
    out: str | Path,
    window: int | None = None,
    image_wh: tuple[int, int] = (1600, 900),
    settings: LabelSettings | None = None,
    compare: str | Path | None = None,
    workers: int = 1,
) -> LabelReport:
    """Makes and writes the labels of all key frames of some scenes.

    A grid in the ego frame gives ``<out>/gts/<scene>/<token>/labels.npz`` (Occ3D), one in the LiDAR frame
    ``<out>/samples/<LiDAR file>.npy`` (SurroundOcc).

    Args:
        scenes: What to make labels of.
        grid: Where.
        out: Folder to write to.
        window: Frames before and after the key frame to use; 0 only the key frame, None all of the scene.
        image_wh: Width and height of the images, pixels, for ``mask_camera``.
        settings: Rules of label making.
        compare: Folder with other labels of the same frames, arranged as ``out``, to compare with; for Occ3D within both
            ``mask_lidar``.
        workers: Processes, a scene each.

    Raises:
        FileNotFoundError: If a LiDAR file or a label to compare with is missing.
        ValueError: If an input is damaged, ``window`` is negative, or labels would be compared with themselves.
    """
    if window is not None and window < 0:
        raise ValueError(f'--window must be 0 or more frames, got {window}')
    if not scenes:
        raise ValueError('there is no scene to make labels of')
    out, compare = Path(out), None if compare is None else Path(compare)
    if compare is not None and compare.resolve() == out.resolve():
        raise ValueError(f"'{out}' would be overwritten and compared with itself; give --out another folder")
    settings = settings or LabelSettings()
    jobs = [_Job(scene, grid, out, window, tuple(image_wh), settings, compare, len(scenes) == 1) for scene in scenes]
    reports = map_jobs(_make, jobs, workers, 'making labels', 'scene')
    total = reports[0]
    for report in reports[1:]:
        total = total + report
    return total


def label_file(folder: Path, record: FrameRecord, grid: VoxelGrid) -> Path:
    """Where the label of a frame lies below a folder."""
    if grid.frame == 'ego':
        return folder / 'gts' / occ3d_label_path(record)
    return folder / 'samples' / surroundocc_label_path(record)


def _make(job: _Job) -> LabelReport:
    scene, grid = job.scene, job.grid
    frames = [scene.load(index) for index in range(len(scene.records))]
    aggregator = SceneAggregator(frames, job.settings)
    total = None
    for index, record in enumerate(tqdm(scene.records, desc='frames', unit='frame', leave=False, disable=not job.show)):
        near = None if job.window is None else range(max(0, index - job.window), min(len(frames), index + job.window + 1))
        label = make_label(aggregator.sweeps(index, grid, near), record, grid, job.image_wh, job.settings)
        path = label_file(job.out, record, grid)
        if grid.frame == 'ego':
            write_occ3d_label(str(path), label.semantics, label.mask_lidar, label.mask_camera)
        else:
            write_surroundocc_label(str(path), label.semantics, grid)
        report = _report(job, label, record, frames[index])
        total = report if total is None else total + report
    return total


def _report(job: _Job, label: OccLabel, record: FrameRecord, frame: LidarFrame) -> LabelReport:
    grid = job.grid
    agree = occupied = count = 0
    if frame.semantics is not None:
        points = transform(record.lidar2ego, frame.points) if grid.frame == 'ego' else frame.points
        index, inside = grid.point_to_index(points)
        far = np.linalg.norm(frame.points[:, :2], axis=1) >= job.settings.min_range
        used = inside & far & (frame.semantics > 0)
        found = label.semantics[tuple(index[used].T)]
        agree = int((found == frame.semantics[used]).sum())
        occupied, count = int((found != grid.free_index).sum()), int(used.sum())
    confusion = np.zeros((grid.num_classes, grid.num_classes), dtype=np.int64)
    if job.compare is not None:
        other, masks = read_label(label_file(job.compare, record, grid), grid, f'label of frame {record.token}')
        mask = masks.get('mask_lidar', True) & label.mask_lidar
        confusion += np.asarray(voxel_confusion(label.semantics, other, grid.num_classes, mask, grid.ignore_index))
    counts = np.bincount(label.semantics.reshape(-1), minlength=grid.num_classes)[: grid.num_classes]
    seen = (int(label.mask_lidar.sum()), int(label.mask_camera.sum()))
    return LabelReport(1, counts, *seen, count, agree, occupied, confusion)
