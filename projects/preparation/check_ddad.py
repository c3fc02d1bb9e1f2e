"""Checks a data root of DDAD."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.datasets.dgp_scenes import DDAD_CAMERAS, DDAD_FILE, SceneReader, read_dgp_json, scene_files
from projects.occ.datasets.image_files import image_files
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.transforms.image_masks import read_image_mask
from projects.occ.datasets.transforms.lidar_pixels import finite_points
from projects.occ.datasets.transforms.pseudo_labels import GROUNDED_SAM_TO_OCC3D, IGNORE, read_class_map
from projects.occ.structures.frame_record import FrameRecord, geometry_problems

from .check_files import check_image
from .findings import Finding
from .parallel import map_jobs

IMAGE_WH = (1936, 1216)
# Scenes and frames of the published splits.
SPLIT_SCENES = {'train': 150, 'val': 50}
SPLIT_FRAMES = {'train': 12650, 'val': 3950}


@dataclass
class _FrameJob:
    """Files of one frame, with those masks and class maps that are looked at."""

    record: FrameRecord
    root: Path
    image_wh: tuple[int, int]
    masks: list[str]
    valid: str
    classes: list[str]


def check_ddad(
    data_root: str | Path,
    splits: Sequence[str] = ('train', 'val'),
    masks: str | Path | None = None,
    mask_pattern: str = '{camera}/{scene}/mask.png',
    valid: str = 'zero',
    pseudo: str | Path | None = None,
    image_wh: tuple[int, int] = IMAGE_WH,
    complete: bool = True,
    workers: int = 1,
) -> list[Finding]:
    """Looks at everything that training and testing read.

    The data set file and the scenes of the splits; calibrations and poses; images there, complete, of one size; LiDAR clouds
    there and readable. Self-occlusion masks and class maps of images, if their folders are given.

    Args:
        data_root: Folder of ``ddad.json``.
        splits: Splits to check.
        masks: Folder of the self-occlusion masks.
        mask_pattern: Path of a mask below that folder, with ``{camera}`` and ``{scene}``.
        valid: Which values of a mask show the scene, ``'zero'`` or ``'nonzero'``.
        pseudo: Folder of class maps, ``<scene>/<camera>/<image>_mask.bin`` below it.
        image_wh: Size of the images, pixels.
        complete: Whether every scene and frame of the published splits must be there.
        workers: Processes.

    Returns:
        Findings, empty if all is well.
    """
    root = Path(data_root)
    path = root / DDAD_FILE
    try:
        dataset = read_dgp_json(str(path), 'data set')
    except FileNotFoundError:
        return [Finding('annotation-missing', str(path), 'does not exist')]
    except ValueError as error:
        return [Finding('annotation-damaged', str(path), str(error))]
    findings: list[Finding] = []
    jobs: list[_FrameJob] = []
    reader = SceneReader(str(root), DDAD_CAMERAS)
    for split in splits:
        try:
            scenes = scene_files(dataset, split, str(path))
        except ValueError as error:
            findings.append(Finding('annotation-damaged', str(path), str(error)))
            continue
        before = len(jobs)
        for scene in scenes:
            try:
                records = reader.read(scene)
            except FileNotFoundError as error:
                findings.append(Finding('scene-missing', str(root / scene), str(error)))
                continue
            except ValueError as error:
                findings.append(Finding('scene-damaged', str(root / scene), str(error)))
                continue
            for problem in geometry_problems(records[0]) if records else ():
                findings.append(Finding('matrix', str(root / scene), problem))
            for record in records:
                files = [] if masks is None else image_files(str(masks), mask_pattern, record).values()
                pattern = '{scene}/{camera}/{image}_mask.bin'
                classes = [] if pseudo is None else image_files(str(pseudo), pattern, record).values()
                jobs.append(_FrameJob(record, root, image_wh, list(files), valid, list(classes)))
        count = len(jobs) - before
        if complete and (len(scenes), count) != (SPLIT_SCENES.get(split), SPLIT_FRAMES.get(split)):
            message = (
                f"{len(scenes)} scenes with {count} frames in split '{split}'; the data set has {SPLIT_SCENES.get(split)} with "
                f'{SPLIT_FRAMES.get(split)}'
            )
            findings.append(Finding('frame-count', str(path), message))
    for found in map_jobs(_check_frame, jobs, workers, 'checking ddad'):
        findings += found
    # frames of a scene share their masks
    return list(dict.fromkeys(findings))


def _check_frame(job: _FrameJob) -> list[Finding]:
    findings: list[Finding] = []
    for camera in job.record.cameras.values():
        path = job.root / camera.img_path
        found, size = check_image(path)
        findings += found
        if size is not None and size != job.image_wh:
            message = f'has {size[0]} x {size[1]} pixels; expected {job.image_wh[0]} x {job.image_wh[1]}'
            findings.append(Finding('image-size', str(path), message))
    path = job.root / job.record.lidar_path
    try:
        if not len(finite_points(read_points(str(path), NUSCENES_POINT_DIMS, 'LiDAR cloud', 'copy it again'))):
            findings.append(Finding('lidar-damaged', str(path), 'has no finite point'))
    except FileNotFoundError:
        findings.append(Finding('lidar-missing', str(path), 'does not exist'))
    except ValueError as error:
        findings.append(Finding('lidar-damaged', str(path), str(error)))
    for name in job.masks:
        findings += _check_mask(name, job.valid, job.image_wh)
    for name in job.classes:
        findings += _check_class_map(name, job.image_wh)
    return findings


def _check_mask(path: str, valid: str, image_wh: tuple[int, int]) -> list[Finding]:
    try:
        mask = read_image_mask(path, 'self-occlusion mask', valid)
    except FileNotFoundError:
        return [Finding('image-mask-missing', path, 'does not exist')]
    except ValueError as error:
        return [Finding('image-mask-damaged', path, str(error))]
    if mask.shape != image_wh[::-1]:
        message = f'has {mask.shape[1]} x {mask.shape[0]} pixels; expected {image_wh[0]} x {image_wh[1]}'
        return [Finding('image-mask-damaged', path, message)]
    if mask.mean() < 0.5:
        message = f'leaves {mask.mean():.0%} of the pixels; --mask-valid {valid} may be the wrong way round'
        return [Finding('image-mask-damaged', path, message)]
    return []


def _check_class_map(path: str, image_wh: tuple[int, int]) -> list[Finding]:
    try:
        ids = np.unique(read_class_map(path, 'class map', image_wh))
    except FileNotFoundError:
        return [Finding('class-map-missing', path, 'does not exist')]
    except ValueError as error:
        return [Finding('class-map-damaged', path, str(error))]
    wrong = ids[(ids < IGNORE) | (ids >= len(GROUNDED_SAM_TO_OCC3D))]
    if wrong.size:
        message = f'holds the ids {wrong[:3].tolist()}; expected -1..{len(GROUNDED_SAM_TO_OCC3D) - 1}'
        return [Finding('class-map-damaged', path, message)]
    return [Finding('class-map-damaged', path, 'labels no pixel')] if (ids == IGNORE).all() else []
