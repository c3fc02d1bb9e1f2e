"""Checks a data root of Occ3D-nuScenes or SurroundOcc-nuScenes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from projects.occ.datasets.info_formats import InfoFile, read_info_file
from projects.occ.datasets.nuscenes_occ_dataset import NUSCENES_CAMERAS, scenes_by_token
from projects.occ.file_arrays import load_arrays
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import get_benchmark
from projects.occ.structures.frame_record import (
    CameraRecord,
    FrameRecord,
    geometry_problems,
    occ3d_label_path,
    size_problem,
)

from .check_files import check_image, check_label, check_lidar
from .findings import Finding
from .nuscenes import LABELS_IN_FOLDER, label_path
from .parallel import map_jobs

_GROUND_AND_BACKGROUND = slice(11, 17)


@dataclass
class _FrameJob:
    """Files of one frame, and the grid that its label must have."""

    images: dict[str, Path]
    lidar: Path
    label: Path | None
    grid: VoxelGrid


@dataclass
class _FrameResult:
    """What was found in a frame's files."""

    findings: list[Finding] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))


def check_nuscenes(
    benchmark: str,
    data_root: str | Path,
    grid: VoxelGrid,
    nuscenes: str = 'nuscenes',
    labels: str | None = None,
    ann_files: Sequence[str] | None = None,
    workers: int = 1,
) -> list[Finding]:
    """Looks at everything that training and testing read.

    Annotation files: readable, frames once, in order, splits apart, matrices sensible, paths inside the data root. Files: all
    images there, complete, of one size per camera (that of the intrinsics), principal point inside; all labels there,
    complete, of the right shape, type and classes; masks. LiDAR files and RayIoU origins only where they exist.

    Args:
        benchmark: ``'occ3d'`` or ``'surroundocc'``.
        data_root: Root of everything.
        grid: Grid of the labels.
        nuscenes: Folder with ``samples/`` below the root.
        labels: Folder of the benchmark below the root.
        ann_files: Annotation files below the root; None for every ``*infos*.pkl`` in the root and the label folder.
        workers: Processes.

    Returns:
        Findings, in the order in which they should be dealt with; empty if all is well.
    """
    root = Path(data_root)
    folder = root / (labels or f'{benchmark}_nuscenes')
    findings, files = _read_annotations(root, folder, ann_files)
    scenes = None
    jobs: dict[tuple, _FrameJob] = {}
    cameras: dict[str, list[tuple[str, str, CameraRecord]]] = defaultdict(list)
    for path, info_file in files.items():
        findings += _check_records(str(path), info_file, get_benchmark(benchmark).splits)
        findings += _check_origins(path, info_file)
        for record in info_file.records:
            relative = label_path(record, benchmark)
            if not relative:
                scenes = scenes_by_token(str(folder / 'gts')) if scenes is None else scenes
                relative = f'{scenes[record.token]}/{record.token}/labels.npz' if record.token in scenes else ''
            job = _FrameJob(
                images={name: root / nuscenes / camera.img_path for name, camera in record.cameras.items()},
                lidar=root / nuscenes / record.lidar_path,
                label=folder / LABELS_IN_FOLDER[benchmark] / relative if relative else None,
                grid=grid,
            )
            if job.label is None:
                message = f'frame {record.token} has no scene name, and gts has no folder for it, so its label cannot be found'
                findings.append(Finding('label-missing', str(path), message))
            jobs[(job.label, job.lidar, *job.images.values())] = job
            for name, camera in record.cameras.items():
                cameras[str(job.images[name])].append((str(path), f'frame {record.token}, {name}', camera))
    findings += _check_overlap(files)
    results = map_jobs(_check_frame, list(jobs.values()), workers, f'checking {benchmark}')
    for result in results:
        findings += result.findings
    findings += _check_sizes(jobs.values(), results, cameras)
    counts = sum((result.counts for result in results), np.zeros(256, dtype=np.int64))
    if counts.any() and not counts[_GROUND_AND_BACKGROUND].any():
        message = 'no voxel of any label has a class 11..16 (road to vegetation), so these are labels of another class set'
        findings.append(Finding('classes-missing', str(folder), message))
    return findings


def _check_frame(job: _FrameJob) -> _FrameResult:
    result = _FrameResult()
    for name, path in job.images.items():
        found, size = check_image(path)
        result.findings += found
        if size is not None:
            result.sizes[name] = size
    result.findings += check_lidar(job.lidar)
    if job.label is not None:
        found, result.counts = check_label(job.label, job.grid)
        result.findings += found
    return result


def _read_annotations(root: Path, folder: Path, ann_files: Sequence[str] | None) -> tuple[list[Finding], dict[Path, InfoFile]]:
    if ann_files is None:
        paths = sorted({*root.glob('*infos*.pkl'), *folder.glob('*infos*.pkl')})
        if not paths:
            message = (
                f'neither this folder nor {folder.name}/ has an annotation file (*infos*.pkl); make them with create_data.py'
            )
            return [Finding('annotation-missing', str(root), message)], {}
    else:
        paths = [root / name for name in ann_files]
    findings, files = [], {}
    for path in paths:
        try:
            files[path] = read_info_file(str(path))
        except FileNotFoundError:
            findings.append(Finding('annotation-missing', str(path), 'does not exist'))
        except ValueError as error:
            message = str(error).removeprefix(f'{path}: ').removeprefix(f'{path} ')
            if 'holds no frames' not in message:
                findings.append(Finding('annotation-damaged', str(path), message))
    return findings, files


def _split_of(path: Path) -> str:
    return next((split for split in ('train', 'val') if split in path.stem), '')


def _check_records(path: str, info_file: InfoFile, splits: Mapping[str, int]) -> list[Finding]:
    findings = []

    def found(kind: str, message: str) -> None:
        findings.append(Finding(kind, path, message))

    records = info_file.records
    expected = splits.get(_split_of(Path(path)))
    if info_file.metainfo.get('version') == 'v1.0-trainval' and expected and len(records) != expected:
        found('frame-count', f'{len(records)} frames; the split of v1.0-trainval has {expected}')
    for token, count in Counter(record.token for record in records).items():
        if count > 1:
            found('frame-duplicate', f'frame {token} occurs {count} times')
    for record in records:
        what = f'frame {record.token}'
        missing = [name for name in NUSCENES_CAMERAS if name not in record.cameras]
        if missing:
            found('camera-missing', f'{what} has no {", ".join(missing)}')
        for problem in geometry_problems(record):
            found('intrinsics' if 'cam2img' in problem else 'matrix', f'{what}: {problem}')
        if np.array_equal(record.ego2global, np.eye(4)) or not record.ego2global[:3, :3].any():
            found('pose-empty', f'{what}: ego2global is empty (identity or zero)')
        for message in _path_problems(record):
            found('foreign-path', f'{what}: {message}')
    findings += _check_order(path, records)
    return findings


def _path_problems(record: FrameRecord) -> Iterable[str]:
    paths = {'label_path': record.label_path, 'lidar_path': record.lidar_path}
    paths.update({name: camera.img_path for name, camera in record.cameras.items()})
    for name, value in paths.items():
        parts = PurePosixPath(value.replace('\\', '/')).parts
        if parts and (parts[0] == '/' or '..' in parts or ':' in parts[0]):
            yield f"{name} '{value}' leads out of the data root; expected a path relative to it"
    own = occ3d_label_path(replace(record, label_path=''))
    if own and occ3d_label_path(record) != own:
        yield f"label_path '{record.label_path}' belongs to another frame; expected {own}"


def _check_order(path: str, records: Sequence[FrameRecord]) -> list[Finding]:
    """Within a scene, time goes up with the position, and each frame names its true neighbours."""
    findings = []
    scenes: dict[str, dict[int, FrameRecord]] = defaultdict(dict)
    for record in records:
        if record.scene_name and record.frame_idx >= 0:
            known = scenes[record.scene_name].get(record.frame_idx)
            if known is not None and known.token != record.token:
                message = f'frames {known.token} and {record.token} have the same frame_idx {record.frame_idx}'
                findings.append(Finding('frame-order', path, message))
            scenes[record.scene_name][record.frame_idx] = record
    for scene, frames in scenes.items():
        for index, record in sorted(frames.items()):
            following = frames.get(index + 1)
            if following is None:
                continue
            if following.timestamp <= record.timestamp:
                message = f'{scene}: frame {following.token} comes after {record.token} but is not later'
                findings.append(Finding('frame-order', path, message))
            if record.next and record.next != following.token:
                message = f"{scene}: 'next' of frame {record.token} is {record.next}, but {following.token} follows it"
                findings.append(Finding('frame-order', path, message))
    return findings


def _check_overlap(files: dict[Path, InfoFile]) -> list[Finding]:
    """Frames or scenes that a train file shares with the val file of the same name."""
    findings = []
    for path, train in files.items():
        if _split_of(path) != 'train':
            continue
        other = path.with_name(path.name.replace('train', 'val'))
        if other not in files:
            continue
        for what, values in (
            ('frames', [{record.token for record in content.records} for content in (train, files[other])]),
            ('scenes', [{record.scene_name for record in content.records} - {''} for content in (train, files[other])]),
        ):
            common = sorted(values[0] & values[1])
            if common:
                message = f"shares {len(common)} {what} with '{other.name}', e.g. {common[0]}"
                findings.append(Finding('split-overlap', str(path), message))
    return findings


def _check_origins(path: Path, info_file: InfoFile) -> list[Finding]:
    """``ray_origins_<split>.npz`` beside the file that ``create_data.py`` made, if there is one."""
    origins = path.with_name(path.name.replace('occ_infos_', 'ray_origins_')).with_suffix('.npz')
    if not path.name.startswith('occ_infos_') or not origins.is_file():
        return []
    try:
        arrays = load_arrays(origins, 'RayIoU origins', 'make it again with create_data.py')
        known = set(arrays['tokens'].tolist())
        finite = bool(np.isfinite(arrays['origins']).all())
    except (ValueError, KeyError, TypeError) as error:
        return [Finding('origins', str(origins), f'cannot be read: {error}; make it again with create_data.py')]
    missing = [record.token for record in info_file.records if record.token not in known]
    findings = []
    if missing:
        message = f"lacks {len(missing)} frames of '{path.name}', e.g. {missing[0]}; make it again with create_data.py"
        findings.append(Finding('origins', str(origins), message))
    if not finite:
        findings.append(
            Finding('origins', str(origins), 'holds numbers that are not finite; make it again with create_data.py')
        )
    return findings


def _check_sizes(
    jobs: Iterable[_FrameJob],
    results: Sequence[_FrameResult],
    cameras: dict[str, list[tuple[str, str, CameraRecord]]],
) -> list[Finding]:
    """One size per camera, that of its intrinsics, and every principal point inside its image and near the middle."""
    findings = []
    sizes: dict[str, Counter] = defaultdict(Counter)
    for result in results:
        for name, size in result.sizes.items():
            sizes[name][size] += 1
    usual = {name: counter.most_common(1)[0][0] for name, counter in sizes.items()}
    for job, result in zip(jobs, results):
        for name, size in result.sizes.items():
            path = str(job.images[name])
            if size != usual[name]:
                message = f'has {size[0]} x {size[1]} pixels, other images of {name} {usual[name][0]} x {usual[name][1]}'
                findings.append(Finding('image-size', path, message))
                continue
            for file, what, camera in cameras[path]:
                cam2img = camera.cam2img
                inside = 0 < cam2img[0, 2] < size[0] and 0 < cam2img[1, 2] < size[1]
                if not inside:
                    point = f'({cam2img[0, 2]:g}, {cam2img[1, 2]:g})'
                    message = f'{what}: the principal point {point} is outside the image of {size[0]} x {size[1]} pixels'
                    findings.append(Finding('intrinsics', file, message))
                    continue
                problem = size_problem(cam2img, size, camera.image_wh)
                if problem:
                    findings.append(Finding('image-size', path, f'{problem} ({what} of {file})'))
    return findings
