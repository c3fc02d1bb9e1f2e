"""Checks a data root of SSCBench-KITTI-360."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.datasets.kitti360_labels import LABEL_SUFFIX
from projects.occ.datasets.kitti_calibration import read_kitti360_calibration
from projects.occ.datasets.sscbench_kitti360_dataset import CAMERA, IMAGE_WH, SPLITS, sequence_name
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS

from .check_files import check_depth, check_image, check_label
from .findings import Finding
from .parallel import map_jobs

_STRIDE = 5
_LAST_SUSPICIOUS_CLASS = 10  # see kitti360_labels.warn_if_upper_classes_miss


@dataclass
class _FrameJob:
    """Files of one frame; ``raw`` without its suffix, ``depth`` None if depth maps are not looked at."""

    image: Path
    label: Path
    raw: Path
    depth: Path | None
    grid: VoxelGrid
    image_wh: tuple[int, int]


def check_kitti360(
    data_root: str | Path,
    grid: VoxelGrid,
    splits: Sequence[str] = ('train', 'val', 'test'),
    complete: bool = True,
    workers: int = 1,
    depth: bool | None = None,
) -> list[Finding]:
    """Looks at everything that training and testing read.

    Sequences and frames of the splits; images there, complete, of the calibration's size; labels there, complete, of the right
    shape and classes; raw labels where the label is still to be made of them, and otherwise, as calibration files, only where
    they exist; depth maps where their folder exists.

    Args:
        data_root: Root of the benchmark.
        grid: Grid of the labels.
        splits: Splits to check.
        complete: Whether every drive and frame of the splits must be there, with images of the published size. Without it the
            drives that are there are checked, with images of the size that ``calibration/`` says; this is for generated data.
        workers: Processes.
        depth: Whether every frame must have a depth map in ``depth``; None: if that folder exists.

    Returns:
        Findings, empty if all is well.
    """
    root = Path(data_root)
    findings: list[Finding] = []
    jobs: list[_FrameJob] = []
    image_wh = IMAGE_WH
    if (root / 'calibration').is_dir():
        findings, image_wh = _check_calibration(root / 'calibration', complete)
    if depth is None:
        depth = (root / 'depth').is_dir()
    for split in splits:
        before = len(jobs)
        sequences = [sequence_name(number) for number in SPLITS[split]]
        if not complete:
            sequences = [name for name in sequences if (root / 'data_2d_raw' / name).is_dir()]
        for sequence in sequences:
            found, frames = _check_frames(root, sequence)
            findings += found
            for frame in frames:
                jobs.append(
                    _FrameJob(
                        image=root / 'data_2d_raw' / sequence / CAMERA / 'data_rect' / f'{frame}.png',
                        label=root / 'preprocess' / 'labels' / sequence / f'{frame}{LABEL_SUFFIX}',
                        raw=root / 'data_2d_raw' / sequence / 'voxels' / frame,
                        depth=root / 'depth' / sequence / f'{frame}.npy' if depth else None,
                        grid=grid,
                        image_wh=image_wh,
                    )
                )
        count, expected = len(jobs) - before, BENCHMARKS['sscbench-kitti360'].frame_counts(split)
        if complete and count not in expected:
            findings.append(
                Finding(
                    'frame-count',
                    str(root),
                    f"{count} frames in split '{split}'; the benchmark has {' or '.join(map(str, expected))}",
                )
            )
    if not jobs and not findings:
        findings.append(Finding('sequence-missing', str(root / 'data_2d_raw'), f'has no drive of the splits {list(splits)}'))
    counts = np.zeros(256, dtype=np.int64)
    for found, frame_counts in map_jobs(_check_frame, jobs, workers, 'checking sscbench-kitti360'):
        findings += found
        counts += frame_counts
    classes = counts[1 : grid.num_classes]
    if classes.any() and not classes[_LAST_SUSPICIOUS_CLASS:].any():
        message = (
            f'no voxel of any label has a class above {_LAST_SUSPICIOUS_CLASS}, so they were made with the map of another data '
            'set; convert the raw ones: create_data.py sscbench-kitti360 --overwrite'
        )
        findings.append(Finding('classes-missing', str(root / 'preprocess' / 'labels'), message))
    return findings


def _check_frames(root: Path, sequence: str) -> tuple[list[Finding], list[str]]:
    folder = root / 'data_2d_raw' / sequence / 'voxels'
    frames = sorted(path.stem for path in folder.glob('*.bin'))
    if not frames:
        return [Finding('sequence-missing', str(folder), 'is missing or has no <frame>.bin')], []
    findings = []
    for frame in frames:
        if re.fullmatch('[0-9]{6}', frame) is None or int(frame) % _STRIDE:
            message = f'is no frame of SSCBench; expected six digits, a multiple of {_STRIDE}'
            findings.append(Finding('frame-name', str(folder / f'{frame}.bin'), message))
    return findings, frames


def _check_frame(job: _FrameJob) -> tuple[list[Finding], np.ndarray]:
    findings, size = check_image(job.image)
    if size is not None and size != job.image_wh:
        message = f'has {size[0]} x {size[1]} pixels; the calibration is for {job.image_wh[0]} x {job.image_wh[1]}'
        findings.append(Finding('image-size', str(job.image), message))
    found, counts = check_label(job.label, job.grid, 'make it from the raw one: create_data.py sscbench-kitti360')
    findings += found
    if job.depth is not None:
        findings += check_depth(job.depth, job.image_wh)
    for suffix, bytes_per_voxel in (('.label', 2), ('.invalid', 1)):
        path = job.raw.with_suffix(suffix)
        expected = bytes_per_voxel * job.grid.num_voxels
        if not path.is_file():
            if not job.label.is_file():
                message = "does not exist, so the label cannot be made; unpack SSCBench's voxels again"
                findings.append(Finding('raw-label-missing', str(path), message))
        elif path.stat().st_size != expected:
            message = f'has {path.stat().st_size} bytes; expected {expected}, {bytes_per_voxel} per voxel'
            findings.append(Finding('raw-label-damaged', str(path), message))
    return findings, counts


def _check_calibration(folder: Path, published: bool) -> tuple[list[Finding], tuple[int, int]]:
    """Findings about calibration files, and the image size that they, or else the published numbers, say."""

    def found(message: str) -> tuple[list[Finding], tuple[int, int]]:
        return [Finding('calibration', str(folder), message)], IMAGE_WH

    try:
        camera = read_kitti360_calibration(str(folder))
    except (FileNotFoundError, ValueError) as error:
        return found(str(error))
    width, height = camera.image_wh
    focal, centre = camera.cam2img[[0, 1], [0, 1]], camera.cam2img[:2, 2]
    turn = camera.ref2cam[:3, :3]
    if published and camera.image_wh != IMAGE_WH:
        return found(f'is for images of {width} x {height} pixels; the benchmark has {IMAGE_WH[0]} x {IMAGE_WH[1]}')
    if not (focal > 0).all() or not ((centre > 0) & (centre < [width, height])).all():
        return found(f'focal lengths {focal.tolist()} and principal point {centre.tolist()} fit no image of {width} x {height}')
    if not np.abs(turn @ turn.T - np.eye(3)).max() < 1e-4:
        return found('the rotation from the Velodyne to the camera is not orthonormal')
    return [], camera.image_wh
