"""Draws LiDAR rays of real frames: those of seven frames over a label from above, and those of a key frame on its images.

The samples are not part of this repository (docs/datasets.md, "Real sample frames"). The sequence of LiDAR frames has point
classes and poses but no images, so it borrows the cameras of the key frame; the label that its rays are laid over is made of
all its frames (``projects/preparation/label_making.py``). The key frame has images but no point classes: its rays are
coloured by depth. Printed is the share of rays that end in an occupied voxel, and in one of their class. Look at the
pictures: ends of rays have to lie on voxels of their colour, and depths have to follow the outlines of cars and poles.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import mmcv
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from real_frame import PANORAMA, SampleFrame, read_frames, run, sample_file  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.datasets.point_classes import LIDARSEG_ID  # noqa: E402
from projects.occ.datasets.transforms import LoadLidarRays  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS  # noqa: E402
from projects.occ.structures.frame_inputs import frame_inputs, in_reference_of, join_frames, ref2global  # noqa: E402
from projects.occ.structures.frame_record import CameraRecord, FrameRecord  # noqa: E402
from projects.preparation.label_aggregation import SceneAggregator  # noqa: E402
from projects.preparation.label_making import OccLabel, make_label  # noqa: E402
from projects.preparation.label_sources import LabelScene, scene_from_folder  # noqa: E402

OFFSETS = (-3, -2, -1, 0, 1, 2, 3)
KEY = 5
IMAGE_WH = (1600, 900)
SEQUENCE = 'nuscenes_lidar_sequence'
_CELL = 6  # pixels of a voxel in the picture from above


def prepare(shared: Path, out: Path) -> list[Path]:
    """Makes the pictures.

    Args:
        shared: Folder of the samples.
        out: Folder to write to.

    Returns:
        The pictures.
    """
    grid = BENCHMARKS['occ3d'].grid
    frame = read_frames(shared)[0]
    sample_file(shared / SEQUENCE / 'frame_00.npz')
    scene = scene_from_folder(shared / SEQUENCE)
    label = label_of(scene, grid)
    with tempfile.TemporaryDirectory() as folder:
        results = rays_of(scene, frame.record, grid, Path(folder))
    for name, offsets in (('key frame', (0,)), ('other frames', tuple(offset for offset in OFFSETS if offset))):
        occupied, same, count = shares(results, label, grid, offsets)
        print(
            f'{name}: {count} rays inside the grid, {occupied:.1%} end in an occupied voxel, {same:.1%} in one of their class'
        )
    pictures = []
    for name, pixels in (('label', from_above(label, results, grid)), ('images', on_images(frame, grid))):
        path = out / f'rays_{name}.png'
        write_atomically(path, lambda file, pixels=pixels: file.write(cv2.imencode('.png', pixels[..., ::-1])[1].tobytes()))
        pictures.append(path)
    return pictures


def label_of(scene: LabelScene, grid: VoxelGrid) -> OccLabel:
    """Label of the key frame from all frames of the sequence."""
    aggregator = SceneAggregator([scene.load(index) for index in range(len(scene.records))])
    return make_label(aggregator.sweeps(KEY, grid), scene.records[KEY], grid)


def rays_of(scene: LabelScene, rig: FrameRecord, grid: VoxelGrid, folder: Path) -> dict:
    """Rays of the frames around the key frame, through the loader of training; the sequence is written as nuScenes has it.

    Args:
        scene: The sequence.
        rig: Key frame whose cameras it borrows.
        grid: The grid.
        folder: Where the files are written to.
    """
    inputs = {}
    for offset in OFFSETS:
        index = KEY + offset
        record = with_cameras(scene.records[index], rig)
        cloud = scene.load(index)
        points = np.zeros((len(cloud.points), 5), dtype='<f4')
        points[:, :3] = cloud.points
        record.lidar_path, record.lidarseg_path = str(folder / f'{index}.bin'), str(folder / f'{index}_lidarseg.bin')
        points.tofile(record.lidar_path)
        LIDARSEG_ID[cloud.semantics].tofile(record.lidarseg_path)
        inputs[offset] = frame_inputs(record, grid.frame), ref2global(record, grid.frame)
    key, pose = inputs[0]
    others = [(offset, in_reference_of(views, np.linalg.inv(own) @ pose)) for offset, (views, own) in inputs.items() if offset]
    results = join_frames(key, (), others)
    results.update(grid=grid, ori_img_wh=np.array([IMAGE_WH] * len(results['cam_names'])))
    np.random.seed(0)  # noqa: NPY002 - the transform draws from the global generator
    return LoadLidarRays(num_rays=10**7)(results)


def with_cameras(record: FrameRecord, rig: FrameRecord) -> FrameRecord:
    """A frame with the cameras of another one, as if all had been triggered with the LiDAR."""
    cameras = {
        name: CameraRecord(
            img_path=f'{record.token}_{name}.jpg',
            cam2img=camera.cam2img,
            lidar2cam=np.linalg.inv(camera.cam2ego) @ record.lidar2ego,
            cam2ego=camera.cam2ego,
        )
        for name, camera in rig.cameras.items()
    }
    return replace(record, cameras=cameras)


def ends_of(rays: dict) -> np.ndarray:
    """(R, 3) where rays end, metres."""
    return rays['origin'] + rays['direction'] * (rays['depth'] / rays['depth_per_range'])[:, None]


def shares(results: dict, label: OccLabel, grid: VoxelGrid, offsets: Sequence[int]) -> tuple[float, float, int]:
    """Of rays of some frames with a class that end inside the grid: shares on occupied voxels and on their class; number."""
    rays = results['rays']
    index, inside = grid.point_to_index(ends_of(rays))
    inside &= np.isin(rays['frame'], offsets) & (rays['labels'] != 0)
    found = label.semantics[tuple(index[inside].T)]
    return float((found != grid.free_index).mean()), float((found == rays['labels'][inside]).mean()), int(inside.sum())


def from_above(label: OccLabel, results: dict, grid: VoxelGrid, shown: int = 1500) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the topmost voxel of every column, dim; ends of all rays and some rays, bright; ahead is up."""
    colors = np.array(BENCHMARKS['occ3d'].colors, dtype=np.uint8)
    solid = label.semantics != grid.free_index
    top = grid.shape[2] - 1 - solid[:, :, ::-1].argmax(2)
    flat = colors[np.take_along_axis(label.semantics, top[..., None], 2)[..., 0]] * 0.55
    flat[~solid.any(2)] = 30
    picture = np.ascontiguousarray(flat[::-1, ::-1].repeat(_CELL, 0).repeat(_CELL, 1).astype(np.uint8))

    def pixel(points: np.ndarray) -> np.ndarray:
        scaled = (np.array(grid.upper[:2]) - points[:, :2]) / np.array(grid.voxel_size[:2]) * _CELL
        return scaled[:, ::-1].round().astype(int)

    rays = results['rays']
    ends, starts = pixel(ends_of(rays)), pixel(rays['origin'])
    some = np.random.default_rng(0).permutation(len(ends))[:shown]
    for number in some:
        shade = (255, 255, 255) if rays['frame'][number] == 0 else (120, 160, 255)
        layer = picture.copy()
        cv2.line(layer, tuple(map(int, starts[number])), tuple(map(int, ends[number])), shade, 1, cv2.LINE_AA)
        low, high = np.minimum(starts[number], ends[number]) - 2, np.maximum(starts[number], ends[number]) + 3
        box = tuple(slice(max(0, low[axis]), max(0, high[axis])) for axis in (1, 0))
        picture[box] = (picture[box] * 0.75 + layer[box] * 0.25).astype(np.uint8)
    inside = ((ends >= 0) & (ends < picture.shape[0])).all(1)
    picture[ends[inside, 1], ends[inside, 0]] = colors[rays['labels'][inside]]
    return picture


def on_images(frame: SampleFrame, grid: VoxelGrid, scale: float = 0.5) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the six images with the rays of the key frame, near ones red, far ones blue."""
    results = frame_inputs(frame.record, grid.frame)
    for scan in results['lidar_frames']:
        scan.update(lidar_path=str(frame.sources[frame.record.lidar_path]), lidarseg_path='')
    results.update(grid=grid, ori_img_wh=np.array([IMAGE_WH] * len(results['cam_names'])))
    rays = LoadLidarRays(num_rays=10**7, point_classes='none')(results)['rays']
    near = np.clip(1 - np.log(rays['depth'] / 2) / np.log(30), 0, 1)
    colors = cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_JET).reshape(-1, 3)[:, ::-1]
    rows = []
    for names in PANORAMA:
        views = []
        for name in names:
            image = mmcv.imread(frame.sources[frame.record.cameras[name].img_path], channel_order='rgb')
            view = np.ascontiguousarray(mmcv.imrescale(image, scale, interpolation='area'))
            here = rays['camera'] == results['cam_names'].index(name)
            order = np.argsort(-rays['depth'][here])
            for uv, color in zip(rays['uv'][here][order], colors[here][order]):
                cv2.circle(view, tuple(np.floor(uv * scale).astype(int).tolist()), 1, color.tolist(), -1)
            cv2.putText(view, name, (10, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
            views.append(view)
        rows.append(np.concatenate(views, axis=1))
    return np.concatenate(rows, axis=0)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    return run(prepare, __doc__, 'work_dirs/real_lidar_rays', argv)


if __name__ == '__main__':
    sys.exit(main())
