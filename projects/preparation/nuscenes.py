"""Annotation files for Occ3D-nuScenes and SurroundOcc-nuScenes from the raw downloads."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from projects.occ.structures.benchmarks import get_benchmark
from projects.occ.structures.frame_record import LABEL_PATHS, FrameRecord
from projects.preparation.info_writer import write_info_file

from .nuscenes_tables import DOC, load_tables, read_records, split_scenes

# Label folder of each benchmark below the data root, and where the labels lie in it.
LABEL_FOLDERS = {'occ3d': 'occ3d_nuscenes', 'surroundocc': 'surroundocc_nuscenes'}
LABELS_IN_FOLDER = {'occ3d': 'gts', 'surroundocc': 'samples'}


@dataclass
class PreparedSplit:
    """What was made of a split.

    Attributes:
        path: The annotation file.
        records: All frames of the split's scenes that the tables have, those without a label included: RayIoU's origins need
            complete scenes.
        labelled: Number of frames in the annotation file.
        without_label: Tokens of the frames that have no label and were left out.
        without_images: Tokens of the frames that lack an image and were left out.
    """

    path: Path
    records: list[FrameRecord]
    labelled: int
    without_label: list[str]
    without_images: list[str] = field(default_factory=list)


def label_path(record: FrameRecord, benchmark: str) -> str:
    """Path of a frame's label below the benchmark's ``gts`` or ``samples``."""
    return LABEL_PATHS[benchmark](record)


def prepare_nuscenes(
    benchmark: str,
    data_root: str | Path,
    nuscenes: str = 'nuscenes',
    labels: str | None = None,
    version: str = 'v1.0-trainval',
    skip_unlabelled: bool = False,
    camera_sweeps: int = 0,
    skip_missing_images: bool = False,
    unlabelled: bool = False,
) -> dict[str, PreparedSplit]:
    """Writes ``<data_root>/<labels>/occ_infos_<split>.pkl`` for every split of a version.

    Args:
        benchmark: ``'occ3d'`` or ``'surroundocc'``.
        data_root: Root of everything.
        nuscenes: Folder of the raw download below it, with ``<version>/`` and ``maps/``; ``samples/`` is listed at most.
        labels: Folder of the benchmark's download below it, with ``gts/`` resp. ``samples/``, and for Occ3D perhaps
            ``annotations.json``; None for the benchmark's default.
        version: Folder of the tables.
        skip_unlabelled: Leave frames without a label out instead of refusing them.
        camera_sweeps: How many camera images before and after that of the key frame the files hold, per camera.
        skip_missing_images: Leave frames out that lack an image below ``samples/``, as in a partial download, and splits of
            which nothing is left.
        unlabelled: Write all frames, whether they have a label or not, for predictions without labels; also of versions that
            have none, such as v1.0-test. The label folder need not exist.

    Returns:
        By split.

    Raises:
        FileNotFoundError: If tables, the label folder or (without ``skip_unlabelled``) labels are missing.
        ValueError: If tables are damaged, or a split has no frame.
    """
    folder = Path(data_root) / (labels or LABEL_FOLDERS[benchmark])
    label_root = folder / LABELS_IN_FOLDER[benchmark]
    if not unlabelled and not label_root.is_dir():
        raise FileNotFoundError(
            f'\'{label_root}\' does not exist; it should hold the downloaded labels (docs/datasets.md, "Folders"). Give its '
            'parent with --labels'
        )
    tables = load_tables(Path(data_root) / nuscenes, version)
    splits = {
        split: read_records(tables, scenes, camera_sweeps) for split, scenes in split_scenes(tables, not unlabelled).items()
    }
    if (folder / 'annotations.json').is_file():  # Occ3D's own list of frames
        _compare_with_annotations(folder / 'annotations.json', splits)
    without_images: dict[str, list[str]] = {}
    whole = splits
    if skip_missing_images:
        splits, without_images = _with_images(splits, Path(data_root) / nuscenes)
    existing = None if unlabelled else _existing_labels(label_root, benchmark)
    labelled = {
        split: [r for r in records if existing is None or label_path(r, benchmark) in existing]
        for split, records in splits.items()
    }
    _refuse_missing(splits, labelled, benchmark, label_root, version, skip_unlabelled)

    prepared = {}
    for split, records in splits.items():
        path = folder / f'occ_infos_{split}.pkl'
        write_info_file(str(path), labelled[split], version)
        kept = {record.token for record in labelled[split]}
        without_label = [r.token for r in records if r.token not in kept]
        prepared[split] = PreparedSplit(path, whole[split], len(kept), without_label, without_images.get(split, []))
    return prepared


def _with_images(
    splits: Mapping[str, list[FrameRecord]], root: Path
) -> tuple[dict[str, list[FrameRecord]], dict[str, list[str]]]:
    """The frames all of whose images are there, of splits that have some, and the tokens of the others.

    Raises:
        FileNotFoundError: If no frame is left.
    """
    there = {path.relative_to(root).as_posix() for path in (root / 'samples').glob('CAM_*/*')}
    kept, without = {}, {}
    for split, records in splits.items():
        whole = [record for record in records if all(camera.img_path in there for camera in record.cameras.values())]
        without[split] = sorted({record.token for record in records} - {record.token for record in whole})
        if whole:
            kept[split] = whole
        else:
            print_log(f"split '{split}' is left out: none of its {len(records)} frames has all images", logger='current')
    if not kept:
        raise FileNotFoundError(
            f"no key frame has all its images below '{root / 'samples'}'; unpack at least one part of the images ({DOC})"
        )
    return kept, without


def origin_frames(records: Sequence[FrameRecord]) -> list[dict]:
    """What :func:`projects.occ.evaluation.functional.origins_by_token` needs of the frames."""
    keys = ('token', 'scene_name', 'timestamp', 'lidar2ego', 'ego2global')
    return [{key: getattr(record, key) for key in keys} for record in records]


def _existing_labels(root: Path, benchmark: str) -> set[str]:
    """Paths of all label files; one listing is much faster than asking for 34000 files one by one on a network disk."""
    pattern = re.sub('<.*?>', '*', get_benchmark(benchmark).label_files)
    return {path.relative_to(root).as_posix() for path in root.glob(pattern)}


def _refuse_missing(
    splits: Mapping[str, Sequence[FrameRecord]],
    labelled: Mapping[str, Sequence[FrameRecord]],
    benchmark: str,
    label_root: Path,
    version: str,
    skip_unlabelled: bool,
) -> None:
    for split, records in splits.items():
        if not records:
            raise ValueError(
                f"version '{version}' has no scene of split '{split}'; the tables in its folder are of another version ({DOC})"
            )
        missing = len(records) - len(labelled[split])
        if missing and (not skip_unlabelled or missing == len(records)):
            kept = {record.token for record in labelled[split]}
            first = next(record for record in records if record.token not in kept)
            hint = 'unpack the rest of the labels, or leave these frames out with --skip-unlabelled'
            if missing == len(records):
                hint = (
                    'check that the labels are unpacked and belong to this version, or write files without labels, to predict '
                    'alone, with --unlabelled'
                )
            raise FileNotFoundError(
                f"split '{split}': {missing} of {len(records)} key frames have no label below '{label_root}', the first is "
                f"'{label_path(first, benchmark)}'; {hint}"
            )


def _compare_with_annotations(path: Path, splits: dict[str, list[FrameRecord]]) -> None:
    """Takes label paths from Occ3D's ``annotations.json`` and warns where it and the tables disagree."""
    try:
        warnings = _take_annotations(json.loads(path.read_text()), splits)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"'{path}' is damaged or not Occ3D's annotations.json ({type(error).__name__}: {error}); copy it again or "
            'remove it, it is not needed'
        ) from None
    for warning in warnings:
        print_log(f'{path}: {warning}; the nuScenes tables are used', logger='current', level=logging.WARNING)


def _take_annotations(content: dict, splits: dict[str, list[FrameRecord]]) -> list[str]:
    """Puts the label paths of ``annotations.json`` into the records; returns how it differs from the tables."""
    frames = {token: frame for scene in content['scene_infos'].values() for token, frame in scene.items()}
    warnings = []
    for split, records in splits.items():
        named = content.get(f'{split.removeprefix("mini_")}_split')
        strangers = {record.scene_name for record in records} - set(named or ())
        if named is not None and strangers:
            warnings.append(f'{len(strangers)} scenes of split {split} are not in its {split}_split, e.g. {min(strangers)}')
        moved = []
        for index, record in enumerate(records):
            frame = frames.get(record.token)
            if frame is None:
                continue
            parts = str(frame.get('gt_path', '')).replace('\\', '/').split('/')
            if len(parts) >= 3 and parts[-1] == 'labels.npz':
                records[index] = replace(record, label_path='/'.join(parts[-3:]))
            pose = frame.get('ego_pose', {}).get('translation')
            if pose is not None and np.abs(np.asarray(pose, dtype=np.float64) - record.ego2global[:3, 3]).max() > 0.05:
                moved.append(record.token)
        if moved:
            warnings.append(f'{len(moved)} frames of split {split} have another ego pose there, e.g. {moved[0]}')
    return warnings
