"""Converts the raw labels of SSCBench-KITTI-360 into those that the data set reads."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.kitti360_labels import LABEL_SUFFIX, SSCBENCH_SHAPE, warn_if_upper_classes_miss
from projects.occ.datasets.label_formats import read_raw_label

from .parallel import map_jobs

_HOW = 'docs/datasets.md, "SSCBench-KITTI-360"'


def convert_raw_labels(
    data_root: str | os.PathLike,
    sequences: Sequence[str] | None = None,
    out: str | os.PathLike | None = None,
    shape: Sequence[int] = SSCBENCH_SHAPE,
    overwrite: bool = False,
    workers: int = 1,
) -> np.ndarray:
    """Makes ``<out>/<sequence>/<frame>_1_1.npy`` (float32, as published) of all raw labels.

    Reads ``<data_root>/data_2d_raw/<sequence>/voxels/<frame>.label`` and ``.invalid``. Warns if no converted frame has a class
    above 10.

    Args:
        data_root: Root folder of the data set.
        sequences: Folders of ``data_2d_raw``; None for all that have ``voxels``.
        out: Folder to write to; None for ``<data_root>/preprocess/labels``.
        shape: Number of voxels (X, Y, Z).
        overwrite: Convert frames again whose label exists. False continues an interrupted conversion.
        workers: Processes.

    Returns:
        (256,) int64, voxels of each label value in the frames converted by this call.

    Raises:
        FileNotFoundError: If a sequence has no raw labels, or a frame no ``.invalid``.
        ValueError: If a file has the wrong size or an unknown raw id.
    """
    images = Path(data_root) / 'data_2d_raw'
    out = Path(data_root) / 'preprocess' / 'labels' if out is None else Path(out)
    if sequences is None:
        sequences = sorted(folder.parent.name for folder in images.glob('*/voxels'))
    jobs = []
    for sequence in sequences:
        files = sorted((images / sequence / 'voxels').glob('*.label'))
        if not files:
            raise FileNotFoundError(f"'{images / sequence / 'voxels'}' has no *.label file to convert ({_HOW})")
        jobs += [(file, out / sequence / f'{file.stem}{LABEL_SUFFIX}', tuple(shape)) for file in files]
    if not jobs:
        raise FileNotFoundError(f"'{images}' has no <sequence>/voxels folder with raw labels to convert ({_HOW})")
    jobs = [job for job in jobs if overwrite or not job[1].exists()]
    counts = sum(map_jobs(_convert_raw_label, jobs, workers, 'converting labels'), np.zeros(256, dtype=np.int64))
    warn_if_upper_classes_miss(counts, f"labels converted to '{out}'")
    return counts


def _convert_raw_label(job: tuple[Path, Path, tuple[int, ...]]) -> np.ndarray:
    """Converts one file; returns how often each label value occurs."""
    source, target, shape = job
    remedy = f'copy it again from the release, conversion needs both .label and .invalid of every frame ({_HOW})'
    labels = read_raw_label(source, shape, remedy=remedy)
    write_atomically(target, lambda file: np.save(file, labels.astype(np.float32)))
    return np.bincount(labels.reshape(-1), minlength=256)
