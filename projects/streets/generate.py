"""Generates a whole data set, or recognises that it is already there."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.dgp_scenes import DDAD_FILE
from projects.occ.structures import VoxelGrid

from .config import CLASS_ID, KITTI360, SyntheticConfig
from .ddad_writer import CLASSES as DDAD_CLASSES
from .ddad_writer import DDAD, write_ddad_file, write_ddad_scene
from .ddad_writer import MASKS as DDAD_MASKS
from .frame import FrameMaker
from .kitti360_writer import FOLDERS as KITTI360_FOLDERS
from .kitti360_writer import write_kitti360_calibration, write_kitti360_frame, write_kitti360_poses
from .preview import preview_frame, write_png
from .world import World
from .writer import (
    IMAGE_CLASSES,
    NUSCENES,
    OCC3D,
    SURROUNDOCC,
    bevdet_infos,
    gaussrender_infos,
    info_of,
    write_frame,
    write_infos,
    write_pickle,
)

MARKER = 'synthetic.json'
_INFOS = ('occ_infos_train.pkl', 'occ_infos_val.pkl', 'ddad_infos_train.pkl', 'ddad_infos_val.pkl')
_LAYOUTS = (NUSCENES, OCC3D, SURROUNDOCC, IMAGE_CLASSES, *KITTI360_FOLDERS, DDAD_FILE, DDAD_MASKS, DDAD_CLASSES)
_OURS = (*_LAYOUTS, 'preview', *_INFOS)


class ExistingDataError(ValueError):
    """The output folder holds something else."""


def generate(
    config: SyntheticConfig,
    out: Path,
    workers: int = 2,
    overwrite: bool = False,
    previews: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Generates a data set below ``out``.

    A data set that is already there, complete and of the same configuration, is left as it is. The files do not depend on
    ``workers``.

    Args:
        config: What to generate.
        out: Folder; made if missing.
        workers: Threads, one scene each.
        overwrite: Whether a generated data set of another configuration may be replaced.
        previews: Draw the first frame of so many scenes to ``out/preview``.
        progress: Whether to show a progress bar.

    Returns:
        The content of ``out/synthetic.json`` plus ``reused`` (bool).

    Raises:
        ExistingDataError: If ``out`` holds another data set and ``overwrite`` is not set, or files that were not generated.
        ValueError: If ``workers`` is less than 1.
    """
    if workers < 1:
        raise ValueError(f'--workers must be at least 1, got {workers}')
    out = Path(out)
    found = _prepare(config, out, overwrite)
    if found is not None:
        return {**found, 'reused': True}
    marker = {'complete': False, 'hash': config.hash(), 'config': config.to_dict()}
    _write_json(out / MARKER, marker)
    scenes = config.scenes_train + config.scenes_val
    results: list[Any] = [None] * scenes
    with (
        tqdm(total=scenes * config.frames, unit='frame', desc='synthetic', disable=not progress) as bar,
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        futures = {pool.submit(_scene, config, index, out, index < previews, bar): index for index in range(scenes)}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    splits = {'train': results[: config.scenes_train], 'val': results[config.scenes_train :]}
    if KITTI360 in config.grids:
        write_kitti360_calibration(out, config)
        write_kitti360_poses(out, [[frame.record for frame in scene['frames']] for scene in results], config)
    for split, part in () if KITTI360 in config.grids else splits.items():
        write_infos(out / f'occ_infos_{split}.pkl', [info for scene in part for info in scene['infos']], config)
        if config.legacy_infos:
            frames = [frame for scene in part for frame in scene['frames']]
            if 'surroundocc' in config.grids:
                content = gaussrender_infos([frame.record for frame in frames])
                write_pickle(out / SURROUNDOCC / f'nuscenes_infos_{split}_sweeps_occ.pkl', content)
            if 'occ3d' in config.grids:
                write_pickle(out / OCC3D / f'bevdetv2-nuscenes_infos_{split}.pkl', bevdet_infos(frames))
    names = [*config.grids[KITTI360].class_names, 'ignored'] if KITTI360 in config.grids else list(CLASS_ID)
    marker.update(
        complete=True,
        frames={split: len(part) * config.frames for split, part in splits.items()},
        voxels={
            name: {
                split: dict(zip(names, np.sum([scene['voxels'][name] for scene in part], axis=0).tolist()))
                for split, part in splits.items()
                if part
            }
            for name in config.grids
        },
    )
    _write_json(out / MARKER, marker)
    return {**marker, 'reused': False}


def generate_ddad(
    config: SyntheticConfig, out: Path, workers: int = 2, overwrite: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Generates drives in the layout of DDAD, with the folders of masks and class maps inside; see :func:`generate`.

    Args:
        config: What to generate, 10 frames per second; its label grid decides how far the world reaches, no label is written.
        out: As in :func:`generate`.
        workers: As in :func:`generate`.
        overwrite: As in :func:`generate`.
        progress: As in :func:`generate`.

    Returns:
        The content of ``out/synthetic.json`` plus ``reused`` (bool).

    Raises:
        ExistingDataError, ValueError: As :func:`generate` does.
    """
    if workers < 1:
        raise ValueError(f'--workers must be at least 1, got {workers}')
    out = Path(out)
    found = _prepare(config, out, overwrite, DDAD)
    if found is not None:
        return {**found, 'reused': True}
    marker = {'complete': False, 'layout': DDAD, 'hash': _identity(config, DDAD), 'config': config.to_dict()}
    _write_json(out / MARKER, marker)
    count = config.scenes_train + config.scenes_val
    with (
        tqdm(total=count * config.frames, unit='frame', desc=DDAD, disable=not progress) as bar,
        ThreadPoolExecutor(max_workers=workers) as pool,
    ):
        files = list(pool.map(lambda index: write_ddad_scene(config, index, out, bar.update), range(count)))
    scenes = {'train': files[: config.scenes_train], 'val': files[config.scenes_train :]}
    write_ddad_file(out, scenes)
    marker.update(complete=True, frames={split: len(part) * config.frames for split, part in scenes.items()})
    _write_json(out / MARKER, marker)
    return {**marker, 'reused': False}


def _identity(config: SyntheticConfig, layout: str) -> str:
    return config.hash() if not layout else f'{layout}-{config.hash()}'


def _scene(config: SyntheticConfig, index: int, out: Path, preview: bool, bar: tqdm) -> dict[str, Any]:
    """Generates and writes one scene; returns its infos, frames without pixels, and voxel counts per class."""
    maker = FrameMaker(World(config, index))
    infos, frames = [], []
    voxels: dict[str, Any] = dict.fromkeys(config.grids, 0)
    for number in range(len(maker)):
        frame = maker.make(number)
        if KITTI360 in config.grids:
            write_kitti360_frame(out, frame, config, index)
        else:
            write_frame(out, frame, config)
            infos.append(info_of(frame))
        if preview and number == 0:
            write_png(out / 'preview' / f'{maker.scene_name}.png', preview_frame(frame, config))
        for name, labels in frame.labels.items():
            voxels[name] = voxels[name] + _count(labels, config.grids[name], name)
        # pixels and labels are on disk now
        frame.sweep_images, frame.painted = {}, {}
        frame.views, frame.labels, frame.mask_lidar, frame.mask_camera = {}, {}, {}, {}
        frame.points, frame.point_classes = frame.points[:0], frame.point_classes[:0]
        frames.append(frame)
        bar.update()
    return {'infos': infos, 'frames': frames, 'voxels': voxels}


def _count(labels: np.ndarray, grid: VoxelGrid, name: str) -> np.ndarray:
    """Voxels per class: those of the format and the ignored ones for SSCBench-KITTI-360, else the generator's own."""
    counts = np.bincount(labels.ravel(), minlength=256)
    if name == KITTI360:
        return np.append(counts[: grid.num_classes], counts[grid.ignore_index])
    others = counts[grid.ignore_index] + (counts[0] if grid.free_index != 0 else 0)
    return np.concatenate([[others], counts[1:17], [counts[grid.free_index]]])


def _prepare(config: SyntheticConfig, out: Path, overwrite: bool, layout: str = '') -> dict[str, Any] | None:
    """Returns the marker of an identical data set, or makes room for a new one."""
    marker = out / MARKER
    if out.exists() and not out.is_dir():
        raise ExistingDataError(f'{out} is a file; give --out a folder')
    if not marker.exists():
        strangers = [name for name in _OURS if (out / name).exists()]
        if strangers:
            raise ExistingDataError(
                f'{out} holds {", ".join(strangers)} but no {MARKER}: that was not generated here and will not be touched; '
                'choose another --out'
            )
        return None
    try:
        found = json.loads(marker.read_text())
    except json.JSONDecodeError:
        found = {}
    if found.get('hash') == _identity(config, layout):
        return found if found.get('complete') else None
    if not overwrite:
        raise ExistingDataError(
            f'{out} holds a data set of another configuration ({_differences(found.get("config", {}), config.to_dict())}); '
            'add --overwrite to replace it or choose another --out'
        )
    scenes = [path.parent.name for path in out.glob('[0-9]' * 6 + '/scene_*.json')]
    for name in (*_OURS, *scenes):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
    return None


def _differences(old: dict, new: dict, prefix: str = '') -> str:
    """Names the settings that differ, at most four."""
    parts = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = _differences(a, b, f'{prefix}{key}.')
            parts += inner.split(', ') if inner else []
        elif a != b:
            brief = [value if isinstance(value, (int, float, str, bool)) else type(value).__name__ for value in (a, b)]
            parts.append(f'{prefix}{key}: {brief[0]} there, {brief[1]} asked')
    return ', '.join(parts[:4])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, lambda file: file.write((json.dumps(content, indent=2) + '\n').encode()))
