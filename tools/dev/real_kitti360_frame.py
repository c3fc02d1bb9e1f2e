"""Prepares two real KITTI-360 frames: a data root as SSCBench-KITTI-360 has it, and pictures to look at.

The sample is not part of this repository (docs/datasets.md, "Real sample frames"). The data root holds images, LiDAR sweeps and
calibration files of frames 000855 and 002285 of drive 0000, depth maps made from the LiDAR, and labels made from the LiDAR and
boxes of cars (``projects/preparation/label_making.py``), which are not those of the benchmark: everything above the road is
called building. Dataset configs read it with ``data_root=<out>/``, ``sequences=[0]`` and ``frame_stride=5``.

Pictures, one per frame: the image with the LiDAR's points coloured by depth, the depth map, and the label over the image.
"""

import gzip
import json
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.datasets.kitti360_labels import LABEL_SUFFIX  # noqa: E402
from projects.occ.datasets.kitti_calibration import VelodyneCamera, read_frame_map, read_kitti360_calibration  # noqa: E402
from projects.occ.datasets.lidar_points import KITTI_POINT_DIMS, read_points  # noqa: E402
from projects.occ.datasets.sscbench_kitti360_dataset import CAMERA, sequence_name  # noqa: E402
from projects.occ.datasets.transforms.depth import lidar_depth  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS  # noqa: E402
from projects.occ.structures.frame_record import BoxRecord, CameraRecord, FrameRecord  # noqa: E402
from projects.occ.visualization.voxel_drawing import draw_voxels  # noqa: E402
from projects.preparation.label_making import LabelSettings, LidarSweep, in_box, make_label  # noqa: E402
from tools.dev.real_frame import run, sample_file  # noqa: E402

DRIVE = sequence_name(0)
FRAMES = ('000855', '002285')
CONFIG = 'configs/_base_/datasets/sscbench-kitti360.py'
SETTINGS = LabelSettings(ground_class='road', other_class='building')
_MIN_POINTS = 20  # of a car
_FAR = 50.0  # end of the colour scale of depth, metres


def prepare(shared: Path, out: Path) -> list[Path]:
    """Writes the data root and the pictures, see the module.

    Args:
        shared: Folder of the sample data.
        out: Data root to make.

    Returns:
        The pictures.

    Raises:
        FileNotFoundError: If a part of the sample is missing.
    """
    sample = shared / 'kitti360_sample'
    if not sample.is_dir():
        raise FileNotFoundError(
            f"sample folder '{sample}' does not exist; give the folder that holds it with --shared or the environment variable "
            'OCC_SHARED_DATA'
        )
    grid = VoxelGrid.build(Config.fromfile(str(ROOT / CONFIG), import_custom_modules=False).grid)
    for name in ('perspective.txt', 'calib_cam_to_velo.txt'):
        _copy(sample / 'calibration' / name, out / 'calibration' / name)
    _write(out / 'kitti_360_match.txt', gzip.decompress((sample / 'kitti_360_match.txt.gz').read_bytes()))
    raw_frames = read_frame_map(str(out / 'kitti_360_match.txt'))
    camera = read_kitti360_calibration(str(out / 'calibration'))
    pictures = []
    for frame in FRAMES:
        raw = raw_frames[DRIVE, frame]
        image = out / 'data_2d_raw' / DRIVE / CAMERA / 'data_rect' / f'{frame}.png'
        sweep = out / 'data_3d_raw' / DRIVE / 'velodyne_points' / 'data' / f'{raw}.bin'
        _copy(sample / 'data_2d_raw' / DRIVE / CAMERA / 'data_rect' / f'{raw}.png', image)
        _copy(sample / 'data_3d_raw' / DRIVE / 'velodyne_points' / 'data' / f'{raw}.bin', sweep)
        _write(out / 'data_2d_raw' / DRIVE / 'voxels' / f'{frame}.bin', b'')
        points = read_points(sweep, KITTI_POINT_DIMS, 'LiDAR file of the sample', 'the sample folder is incomplete')
        points = points[:, :3].astype(np.float64)
        objects = json.loads((sample / 'bboxes_3D_cam0' / f'BBoxes_{int(raw)}.json').read_text())
        boxes = car_boxes(objects, camera, points)
        labels = label_of(points, boxes, camera, grid)
        target = out / 'preprocess' / 'labels' / DRIVE / f'{frame}{LABEL_SUFFIX}'
        write_atomically(target, lambda file, labels=labels: np.save(file, labels.astype(np.float32)))
        depth = lidar_depth(points, camera.ref2cam, camera.cam2img, camera.image_wh)
        write_atomically(out / 'depth' / DRIVE / f'{frame}.npy', lambda file, depth=depth: np.save(file, depth))
        pictures.append(out / 'pictures' / f'{frame}.png')
        rgb = mmcv.imread(image, channel_order='rgb')
        rows = [points_over(rgb, points, camera), _depth_colors(depth), label_over(rgb, labels, camera, grid)]
        picture = np.concatenate(rows)
        _write(pictures[-1], cv2.imencode('.png', picture[..., ::-1])[1].tobytes())
        counts = np.bincount(labels.ravel(), minlength=256)
        found = ', '.join(f'{name} {counts[i]}' for i, name in enumerate(grid.class_names) if counts[i])
        covered = (depth > 0).mean()
        print(f'{frame}: {found}, ignored {counts[255]}; {len(boxes.names)} cars; depth at {covered:.0%} of the pixels')
    return pictures


def car_boxes(objects: list[dict], camera: VelodyneCamera, points: np.ndarray) -> BoxRecord:
    """Upright boxes in the Velodyne frame of the cars that are there.

    The file also has a moving car where it was at other times: a box counts if enough points stand in it, and only the fullest
    of boxes that overlap.

    Args:
        objects: With ``corners_cam0``, the eight corners in the camera frame, metres.
        camera: The camera.
        points: (P, 3) LiDAR points, Velodyne frame.
    """
    cam2ref = np.linalg.inv(camera.ref2cam)
    rows, counts = [], []
    for item in objects:
        corners = np.array(item['corners_cam0']) @ cam2ref[:3, :3].T + cam2ref[:3, 3]
        (x, y), (length, width), degrees = cv2.minAreaRect(corners[:, :2].astype(np.float32))
        if length < width:
            length, width, degrees = width, length, degrees + 90
        low, high = corners[:, 2].min(), corners[:, 2].max()
        rows.append(np.array([x, y, (low + high) / 2, length, width, high - low, np.radians(degrees)]))
        # the lowest half metre may be road
        counts.append((in_box(points, rows[-1]) & (points[:, 2] > low + 0.5)).sum())
    kept = []
    for index in np.argsort(counts)[::-1]:
        apart = all(np.hypot(*(rows[index] - rows[other])[:2]) > 3.0 for other in kept)
        if counts[index] >= _MIN_POINTS and apart:
            kept.append(index)
    return BoxRecord(np.array([rows[i] for i in kept], dtype=np.float64).reshape(-1, 7), ['car'] * len(kept))


def label_of(points: np.ndarray, boxes: BoxRecord, camera: VelodyneCamera, grid: VoxelGrid) -> np.ndarray:
    """Label (X, Y, Z) uint8 made from LiDAR points (P, 3); empty voxels that no ray passed are ignored, as in the benchmark."""
    record = FrameRecord(
        token=DRIVE,
        timestamp=0.0,
        lidar_path='',
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        cameras={CAMERA: CameraRecord('', camera.cam2img, camera.ref2cam)},
        boxes=boxes,
    )
    label = make_label([LidarSweep(points, np.zeros(3))], record, grid, camera.image_wh, SETTINGS)
    return np.where(label.mask_lidar, label.semantics, grid.ignore_index).astype(np.uint8)


def points_over(image: np.ndarray, points: np.ndarray, camera: VelodyneCamera) -> np.ndarray:
    """The image (H, W, 3) RGB, darker, with the LiDAR's points coloured by depth."""
    depth = lidar_depth(points, camera.ref2cam, camera.cam2img, camera.image_wh, radius=0)
    shown = cv2.dilate(depth, np.ones((2, 2), np.uint8))
    return np.where((shown > 0)[..., None], _depth_colors(shown), (image * 0.6).astype(np.uint8))


def label_over(image: np.ndarray, labels: np.ndarray, camera: VelodyneCamera, grid: VoxelGrid) -> np.ndarray:
    """The image (H, W, 3) RGB with the label's voxels laid over it."""
    colors = np.full((256, 3), 128, dtype=np.uint8)
    for index, name in enumerate(grid.class_names):
        colors[index] = BENCHMARKS['sscbench-kitti360'].palette.get(name, (0, 0, 0))
    drawn = np.zeros(256, dtype=bool)
    drawn[list(grid.semantic_classes)] = True
    corner, size = np.array(grid.lower), np.array(grid.voxel_size)
    (ref2img,) = camera.matrices()['ref2img']
    view = draw_voxels(labels, colors, drawn, corner, size, ref2img, *camera.image_wh, grid.free_index, samples=1)
    return np.ascontiguousarray(view.over(image, 0.55))


def _depth_colors(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) as colours (H, W, 3) uint8 RGB: near is red, far is blue, none is black."""
    near = (255 * (1 - np.clip(depth / _FAR, 0, 1))).astype(np.uint8)
    colors = cv2.applyColorMap(near, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where((depth > 0)[..., None], colors, 0).astype(np.uint8)


def _copy(source: Path, target: Path) -> None:
    _write(target, sample_file(source).read_bytes())


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    return run(prepare, __doc__, 'work_dirs/real_kitti360', argv)


if __name__ == '__main__':
    sys.exit(main())
