"""Writes and checks what LiDAR sweeps say about the pixels of images, in RenderOcc's files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.datasets.info_formats import read_info_file
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.lidar_rays import project_points, ray_file, read_ray_files, write_ray_rows
from projects.occ.datasets.point_classes import read_lidarseg
from projects.occ.image_files import ImageError, image_size
from projects.occ.structures.frame_record import CameraRecord, FrameRecord

from .findings import Finding
from .parallel import map_jobs

DEPTH_FOLDER, CLASS_FOLDER = 'depth_gt', 'seg_gt_lidarseg'


@dataclass
class _Job:
    """One frame of an annotation file."""

    record: FrameRecord
    nuscenes: Path
    out: Path
    min_depth: float = 0.0
    overwrite: bool = False

    def paths(self, camera: CameraRecord) -> tuple[str, str]:
        depth, classes = (ray_file(str(self.out / folder), camera.img_path) for folder in (DEPTH_FOLDER, CLASS_FOLDER))
        return depth, classes


def write_lidar_rays(
    ann_files: Sequence[str | Path],
    nuscenes: str | Path,
    out: str | Path,
    min_depth: float = 0.0,
    overwrite: bool = False,
    workers: int = 1,
) -> tuple[int, int]:
    """Writes ``<out>/depth_gt/<image>.bin`` and ``<out>/seg_gt_lidarseg/<image>.bin`` of every image of the key frames.

    Args:
        ann_files: Annotation files.
        nuscenes: Folder of ``samples`` and ``lidarseg``.
        out: Folder to write to.
        min_depth: Least depth of a point, metres; RenderOcc keeps all in front of the camera.
        overwrite: Write files again that exist. Without, an interrupted run goes on where it stopped.
        workers: Processes.

    Returns:
        Number of images, and how many of them have no file of classes because their sweep has none.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or damaged, or a frame has no LiDAR file.
    """
    jobs = [_Job(record, Path(nuscenes), Path(out), min_depth, overwrite) for record in _records(ann_files)]
    counts = map_jobs(_write_frame, jobs, workers, 'LiDAR rays')
    return sum(images for images, _ in counts), sum(images for images, classes in counts if not classes)


def check_lidar_rays(ann_files: Sequence[str | Path], nuscenes: str | Path, out: str | Path, workers: int = 1) -> list[Finding]:
    """Looks at every file that :func:`write_lidar_rays` writes: there, whole, of the same points, inside the image.

    Files of classes are asked for where the annotation file names point classes.
    """
    jobs = [_Job(record, Path(nuscenes), Path(out)) for record in _records(ann_files)]
    return sum(map_jobs(_check_frame, jobs, workers, 'checking LiDAR rays'), start=[])


def _records(ann_files: Sequence[str | Path]) -> list[FrameRecord]:
    return [record for path in ann_files for record in read_info_file(str(path)).records]


def _write_frame(job: _Job) -> tuple[int, bool]:
    record = job.record
    with_classes = bool(record.lidarseg_path)
    waiting = {}
    for name, camera in record.cameras.items():
        paths = job.paths(camera)
        wanted = paths if with_classes else paths[:1]
        if job.overwrite or not all(Path(path).is_file() for path in wanted):
            waiting[name] = paths
    if not waiting:
        return len(record.cameras), with_classes
    if not record.lidar_path:
        raise ValueError(f'frame {record.token}: the annotation file names no LiDAR sweep, of which rays are made')
    what = f'LiDAR sweep of frame {record.token}'
    cloud = read_points(job.nuscenes / record.lidar_path, NUSCENES_POINT_DIMS, what, 'check --nuscenes')
    classes = read_lidarseg(job.nuscenes / record.lidarseg_path, len(cloud)) if with_classes else None
    for name, paths in waiting.items():
        camera = record.cameras[name]
        size = np.array([_size(job.nuscenes / camera.img_path)])
        points = project_points(cloud, camera.lidar2cam[None], camera.cam2img[None], size, job.min_depth)
        write_ray_rows(paths[0], points.uv, points.depth)
        if classes is not None:
            write_ray_rows(paths[1], points.uv, classes[points.point])
    return len(record.cameras), with_classes


def _check_frame(job: _Job) -> list[Finding]:
    findings = []
    for name, camera in job.record.cameras.items():
        depth_path, class_path = job.paths(camera)
        wanted = class_path if job.record.lidarseg_path else None
        try:
            uv, depth, _ = read_ray_files(depth_path, wanted, f'{name}, frame {job.record.token}')
        except FileNotFoundError:
            findings += [
                Finding('rays-missing', path, 'does not exist')
                for path in (depth_path, wanted)
                if path and not Path(path).is_file()
            ]
            continue
        except ValueError as error:
            findings.append(Finding('rays-damaged', depth_path, str(error)))
            continue
        try:
            size = _size(job.nuscenes / camera.img_path)
        except (OSError, ValueError) as error:
            findings.append(Finding('image-missing', str(job.nuscenes / camera.img_path), str(error)))
            continue
        if not len(uv):
            findings.append(Finding('rays-damaged', depth_path, 'has no rows: no point of the sweep falls into this image'))
        elif ((uv < 0) | (uv > size)).any() or (depth <= 0).any():
            findings.append(
                Finding('rays-damaged', depth_path, f'has pixels outside the image of {size[0]} x {size[1]}, or depths up to 0')
            )
    return findings


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(path.read_bytes())
    except ImageError as error:
        raise ValueError(f"'{path}' is no image that can be read: {error}") from error
