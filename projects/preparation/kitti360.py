"""SSCBench-KITTI-360 from the raw downloads: labels, images, calibration and frame numbers."""

import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.kitti360_labels import LABEL_SUFFIX
from projects.occ.datasets.kitti360_poses import read_kitti360_poses, write_poses
from projects.occ.datasets.kitti_calibration import read_frame_map, read_kitti360_calibration
from projects.occ.datasets.sscbench_kitti360_dataset import CAMERA, SPLITS, published_calibration, sequence_name

from .raw_label_conversion import convert_raw_labels

FRAME_MAP = 'kitti_360_match.txt'
_CALIBRATION_FILES = ('perspective.txt', 'calib_cam_to_velo.txt')
_DOC = 'docs/datasets.md, "From the raw downloads"'


def prepare_kitti360(
    data_root: str | Path,
    splits: Sequence[str] = ('train', 'val', 'test'),
    kitti360: str | Path | None = None,
    frame_map: str | Path | None = None,
    shape: Sequence[int] = (256, 256, 32),
    workers: int = 1,
    overwrite: bool = False,
    complete: bool = True,
) -> Iterator[str]:
    """Completes ``data_root`` to what :class:`SSCBenchKITTI360Dataset` reads.

    * Labels ``preprocess/labels/<sequence>/<frame>_1_1.npy`` from ``.label`` and ``.invalid``, those that exist are kept.
    * With ``kitti360``: images that SSCBench's folder lacks become symbolic links to KITTI-360's, found by the frame map; the
      calibration files are copied to ``calibration/`` after a comparison with the published numbers, the frame map to
      ``kitti_360_match.txt``; the Velodyne's poses are written to ``poses/<sequence>.npz`` where KITTI-360's are at hand.

    Args:
        data_root: SSCBench's download, with ``data_2d_raw/<sequence>/voxels``.
        splits: Splits whose sequences are prepared.
        kitti360: KITTI-360's download, with ``calibration`` and whatever there is of ``data_2d_raw`` and ``data_poses``.
        frame_map: Which frame of KITTI-360 each one of SSCBench is (``kitti_360_match.txt``, perhaps ``.gz``); None for that
            file in ``data_root``.
        shape: Number of voxels (X, Y, Z).
        workers: Processes.
        overwrite: Convert labels again that exist.
        complete: Whether every drive of the splits must be there. Without it those that are there are prepared; this is for
            generated data.

    Yields:
        Sentences that say what was done.

    Raises:
        FileNotFoundError: If voxels of a sequence, raw labels, the frame map or images are missing.
        ValueError: If a file is damaged, or the calibration is another than the published one.
    """
    root = Path(data_root)
    sequences = [sequence_name(number) for split in splits for number in SPLITS[split]]
    if not complete:
        sequences = [name for name in sequences if (root / 'data_2d_raw' / name).is_dir()] or sequences
    frames = {sequence: _frames(root, sequence) for sequence in sequences}
    lacking = [s for s in sequences if overwrite or _without_label(root, s, frames[s])]
    if lacking:
        counts = convert_raw_labels(root, lacking, shape=shape, overwrite=overwrite, workers=workers)
        yield f'labels: converted {int(counts.sum()) // int(np.prod(shape))} frames of {len(lacking)} sequences'
    still = [f'{s}/{frame}' for s in sequences for frame in _without_label(root, s, frames[s])]
    if still:
        raise FileNotFoundError(
            f"{len(still)} frames have neither a label nor a raw one, the first is {still[0]}; unpack SSCBench's voxels again "
            f'({_DOC})'
        )
    yield f'labels: all {sum(map(len, frames.values()))} frames of {len(sequences)} sequences have one'
    if kitti360 is not None:
        yield from _from_kitti360(root, Path(kitti360), frame_map, frames)


def _frames(root: Path, sequence: str) -> list[str]:
    folder = root / 'data_2d_raw' / sequence / 'voxels'
    frames = sorted({path.stem for pattern in ('*.bin', '*.label') for path in folder.glob(pattern)})
    if not frames:
        raise FileNotFoundError(
            f"'{folder}' is missing or empty; unpack SSCBench's voxels there, or leave its split out with --splits ({_DOC})"
        )
    return frames


def _without_label(root: Path, sequence: str, frames: Sequence[str]) -> list[str]:
    labels = root / 'preprocess' / 'labels' / sequence
    return [frame for frame in frames if not (labels / f'{frame}{LABEL_SUFFIX}').is_file()]


def _from_kitti360(root: Path, kitti360: Path, frame_map: str | Path | None, frames: dict[str, list[str]]) -> Iterator[str]:
    _compare_calibration(kitti360 / 'calibration')
    for name in _CALIBRATION_FILES:
        data = (kitti360 / 'calibration' / name).read_bytes()
        write_atomically(root / 'calibration' / name, lambda file, data=data: file.write(data))
    yield 'calibration: agrees with the published one; copied to calibration/'

    source = Path(frame_map) if frame_map is not None else root / FRAME_MAP
    if not source.is_file():
        raise FileNotFoundError(
            f"'{source}' does not exist; give --frame-map the file kitti_360_match.txt, which tells the frame of KITTI-360 for "
            f'each one of SSCBench ({_DOC})'
        )
    data = source.read_bytes()
    data = gzip.decompress(data) if source.suffix == '.gz' else data
    write_atomically(root / FRAME_MAP, lambda file: file.write(data))
    raw_frames = read_frame_map(str(root / FRAME_MAP))
    made, absent = 0, []
    for sequence, numbers in frames.items():
        target_folder = root / 'data_2d_raw' / sequence / CAMERA / 'data_rect'
        for frame in numbers:
            target = target_folder / f'{frame}.png'
            if target.exists():
                continue
            raw = raw_frames.get((sequence, frame))
            image = kitti360 / 'data_2d_raw' / sequence / CAMERA / 'data_rect' / f'{raw}.png'
            if raw is None or not image.is_file():
                absent.append(f'{sequence}/{frame} ({"not in the frame map" if raw is None else image})')
                continue
            target_folder.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link that leads nowhere
            os.symlink(image.resolve(), target)
            made += 1
    if absent:
        raise FileNotFoundError(
            f"{len(absent)} frames have no image here and none in KITTI-360's folder, the first is {absent[0]}; linked {made}. "
            f'Unpack the images of image_00 ({_DOC})'
        )
    yield f'images: linked {made} to {kitti360}; every frame has one'
    if (kitti360 / 'data_poses').is_dir():
        yield _write_poses(root, kitti360, raw_frames, frames)


def _write_poses(root: Path, kitti360: Path, raw_frames: dict[tuple[str, str], str], frames: dict[str, list[str]]) -> str:
    found = 0
    for sequence, numbers in frames.items():
        known = read_kitti360_poses(kitti360, sequence)
        poses = {}
        for frame in numbers:
            raw = raw_frames.get((sequence, frame))
            if raw is not None and int(raw) in known:
                poses[int(frame)] = known[int(raw)]
        write_poses(root / 'poses' / f'{sequence}.npz', poses)
        found += len(poses)
    return f'poses: {found} of {sum(map(len, frames.values()))} frames, in poses/'


def _compare_calibration(folder: Path) -> None:
    """Intrinsics and image size must be the published ones; the mounting may differ by the small rectifying rotation."""
    found, published = read_kitti360_calibration(str(folder)), published_calibration()
    turn = found.ref2cam[:3, :3] @ published.ref2cam[:3, :3].T
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    shift = float(np.linalg.norm(np.linalg.inv(found.ref2cam)[:3, 3] - np.linalg.inv(published.ref2cam)[:3, 3]))
    pixels = float(np.abs(found.cam2img - published.cam2img).max())
    if found.image_wh != published.image_wh or pixels > 0.01 or angle > 2 or shift > 0.02:
        raise ValueError(
            f"'{folder}' is not the calibration that SSCBench-KITTI-360 goes with: image {found.image_wh}, expected "
            f'{published.image_wh}; intrinsics differ by {pixels:.3g} px, the mounting by '
            f'{angle:.2f} deg and {shift:.3f} m'
        )
