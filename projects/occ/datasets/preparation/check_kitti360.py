"""Checks a data root of SSCBench-KITTI-360."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.datasets.kitti360_labels import LABEL_SUFFIX
from projects.occ.datasets.kitti_calibration import read_kitti360_calibration
from projects.occ.datasets.sscbench_kitti360_dataset import CAMERA, IMAGE_WH, SPLIT_FRAMES, SPLITS, sequence_name
from projects.occ.structures import VoxelGrid

from .check_files import check_image, load_label
from .findings import Finding
from .parallel import map_jobs

_STRIDE = 5
_LAST_SUSPICIOUS_CLASS = 10  # see kitti360_labels.warn_if_upper_classes_miss


@dataclass
class _FrameJob:
    """Files of one frame; ``raw`` without its suffix."""

    image: Path
    label: Path
    raw: Path
    grid: VoxelGrid


def check_kitti360(
    data_root: str | Path, grid: VoxelGrid, splits: Sequence[str] = ('train', 'val', 'test'), workers: int = 1
) -> list[Finding]:
    """Looks at everything that training and testing read.

    Sequences and frames of the splits; images there, complete, of the calibration's size; labels there, complete, of the right
    shape and classes; raw labels and calibration files only where they exist.

    Args:
        data_root: Root of the benchmark.
        grid: Grid of the labels. Frames are counted only for the benchmark's own.
        splits: Splits to check.
        workers: Processes.

    Returns:
        Findings, empty if all is well.
    """
    root = Path(data_root)
    findings: list[Finding] = []
    jobs: list[_FrameJob] = []
    for split in splits:
        before = len(jobs)
        for sequence in map(sequence_name, SPLITS[split]):
            found, frames = _check_frames(root, sequence)
            findings += found
            for frame in frames:
                jobs.append(
                    _FrameJob(
                        image=root / 'data_2d_raw' / sequence / CAMERA / 'data_rect' / f'{frame}.png',
                        label=root / 'preprocess' / 'labels' / sequence / f'{frame}{LABEL_SUFFIX}',
                        raw=root / 'data_2d_raw' / sequence / 'voxels' / frame,
                        grid=grid,
                    )
                )
        count, expected = len(jobs) - before, SPLIT_FRAMES[split]
        if count != expected and not (root / 'synthetic.json').is_file():
            findings.append(
                Finding('frame-count', str(root), f"{count} frames in split '{split}'; the benchmark has {expected}")
            )
    if (root / 'calibration').is_dir():
        findings += _check_calibration(root / 'calibration')
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
    if size is not None and size != IMAGE_WH:
        message = f'has {size[0]} x {size[1]} pixels; the calibration is for {IMAGE_WH[0]} x {IMAGE_WH[1]}'
        findings.append(Finding('image-size', str(job.image), message))
    found, counts = check_kitti360_label(job.label, job.grid)
    findings += found
    for suffix, bytes_per_voxel in (('.label', 2), ('.invalid', 1)):
        path = job.raw.with_suffix(suffix)
        expected = bytes_per_voxel * job.grid.num_voxels
        if path.is_file() and path.stat().st_size != expected:
            message = f'has {path.stat().st_size} bytes; expected {expected}, {bytes_per_voxel} per voxel'
            findings.append(Finding('raw-label-damaged', str(path), message))
    return findings, counts


def check_kitti360_label(path: Path, grid: VoxelGrid) -> tuple[list[Finding], np.ndarray]:
    """Findings about ``<frame>_1_1.npy``, and how often each label value occurs, (256,) int64."""
    counts = np.zeros(256, dtype=np.int64)
    findings, arrays = load_label(path, 'make it from the raw one: create_data.py sscbench-kitti360')
    if findings:
        return findings, counts
    values = arrays.get('', np.zeros(0))

    def found(kind: str, message: str) -> None:
        findings.append(Finding(kind, str(path), message))

    if values.shape != grid.shape:
        found('label-shape', f'has the shape {values.shape}, the grid {grid.shape}')
    elif values.dtype.kind not in 'iuf':
        found('label-type', f'holds {values.dtype}; expected numbers (float32 in the release)')
    else:
        classes = np.unique(values)
        wrong = classes[~np.isin(classes, [*range(grid.num_classes), grid.ignore_index])]
        if wrong.size:
            found('label-class', f'holds {wrong[:3].tolist()}; expected 0..{grid.num_classes - 1} or {grid.ignore_index}')
        else:
            counts = np.bincount(values.astype(np.uint8).reshape(-1), minlength=256)
            if not counts[1 : grid.num_classes].any():
                found('label-empty', 'no voxel has a class')
    return findings, counts


def _check_calibration(folder: Path) -> list[Finding]:
    try:
        camera = read_kitti360_calibration(str(folder))
    except (FileNotFoundError, ValueError) as error:
        return [Finding('calibration', str(folder), str(error))]
    focal = min(camera.cam2img[0, 0], camera.cam2img[1, 1])
    turn = camera.ref2cam[:3, :3]
    if camera.image_wh != IMAGE_WH or not focal > 0 or np.abs(turn @ turn.T - np.eye(3)).max() > 1e-4:
        message = f'image {camera.image_wh}, focal length {focal:g} px: not the calibration of image_00, or no rotation'
        return [Finding('calibration', str(folder), message)]
    return []
