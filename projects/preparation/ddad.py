"""Prepares DDAD: one annotation file per split instead of hundreds of scene files, and depth maps for others' tools."""

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.dgp_scenes import DDAD_CAMERAS, DDAD_FILE, SceneReader, read_dgp_json, scene_files
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.transforms.lidar_pixels import finite_points, project_to_pixels
from projects.occ.structures.frame_record import FrameRecord

from .check_files import check_image
from .info_writer import write_info_file
from .parallel import map_jobs


def read_ddad(data_root: str | Path, split: str) -> list[FrameRecord]:
    """All frames of a split, in the order of its scenes.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or damaged.
    """
    path = str(Path(data_root) / DDAD_FILE)
    reader = SceneReader(str(data_root), DDAD_CAMERAS)
    return [record for scene in scene_files(read_dgp_json(path, 'data set'), split, path) for record in reader.read(scene)]


def prepare_ddad(data_root: str | Path, splits: Sequence[str] = ('train', 'val')) -> dict[str, tuple[Path, int]]:
    """Writes ``ddad_infos_<split>.pkl`` beside ``ddad.json``.

    Args:
        data_root: Folder of ``ddad.json``.
        splits: Splits to read.

    Returns:
        Path and number of frames of each split.
    """
    written = {}
    for split in splits:
        records = read_ddad(data_root, split)
        path = Path(data_root) / f'ddad_infos_{split}.pkl'
        write_info_file(str(path), records, 'ddad', dataset='ddad')
        written[split] = path, len(records)
    return written


def export_depth_maps(data_root: str | Path, out: str | Path, splits: Sequence[str] = ('val',), workers: int = 1) -> int:
    """Writes the LiDAR depth of every image as ``<out>/<scene>/depth/<camera>/<image>.npy``.

    A map is float32 at the size of the image, metres along the optical axis, 0 where no point falls; 9.4 MB per image of DDAD.
    Evaluation here needs none: ``LoadDepthPixels`` reads the clouds.

    Args:
        data_root: Folder of ``ddad.json``.
        out: Folder to write to; maps that exist are kept.
        splits: Splits whose frames are written.
        workers: Processes.

    Returns:
        Number of maps.
    """
    jobs = [(Path(data_root), Path(out), record) for split in splits for record in read_ddad(data_root, split)]
    return sum(map_jobs(_export_frame, jobs, workers, 'depth maps'))


def _export_frame(job: tuple[Path, Path, FrameRecord]) -> int:
    root, out, record = job
    points, count = None, 0
    for name, camera in record.cameras.items():
        path = out / record.scene_name / 'depth' / name / f'{PurePosixPath(camera.img_path).stem}.npy'
        if path.is_file():
            continue
        findings, size = check_image(root / camera.img_path)
        if size is None:
            raise ValueError(f'{findings[0].path}: {findings[0].message}')
        if points is None:
            points = finite_points(
                read_points(
                    str(root / record.lidar_path), NUSCENES_POINT_DIMS, f'LiDAR cloud of frame {record.token}', 'copy it again'
                )
            )
        rows = project_to_pixels(points, camera.lidar2cam, camera.cam2img, size)
        depth = np.zeros(size[::-1], dtype=np.float32)
        depth[rows[:, 1].astype(int), rows[:, 0].astype(int)] = rows[:, 2]
        buffer = io.BytesIO()
        np.save(buffer, depth)
        write_atomically(path, lambda file, buffer=buffer: file.write(buffer.getvalue()))
        count += 1
    return count
