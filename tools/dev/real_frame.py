"""Prepares two real nuScenes key frames: the folders, annotation file and labels of a data root, and overlay pictures.

The sample frames are not part of this repository (docs/datasets.md, "Real sample frames"). The result has the layout of the
benchmarks, so that every dataset config reads it once ``data_root`` and ``ann_file`` point to it. Labels are made from the
LiDAR sweep and the boxes (``projects/preparation/label_making.py``); they are not those of a benchmark.

Overlay pictures lay the label's voxels over the six images; look at them first: cars have to lie on cars.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import mmcv
import numpy as np
import yaml
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.datasets.info_formats import parse_infos, read_info_file  # noqa: E402
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS  # noqa: E402
from projects.occ.structures.frame_record import FrameRecord, occ3d_label_path, surroundocc_label_path  # noqa: E402
from projects.occ.visualization.voxel_drawing import draw_voxels  # noqa: E402
from projects.preparation.info_writer import write_info_file  # noqa: E402
from projects.preparation.label_files import write_occ3d_label, write_surroundocc_label  # noqa: E402
from projects.preparation.label_making import LidarSweep, OccLabel, make_label  # noqa: E402

CONFIGS = (
    'configs/_base_/datasets/occ3d-nus.py',
    'configs/_base_/datasets/surroundocc-nus.py',
    'configs/debug/tpvformer_tiny_real-frame_gaussrender.py',
)
# rows of the overlay pictures
PANORAMA = (('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'), ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'))


class SampleFrame:
    """One sample frame: its record (with boxes) and where its files lie now.

    Attributes:
        record: The key frame; paths are those of the data root to be made.
        sources: Path in the data root -> existing file.
    """

    def __init__(self, record: FrameRecord, sources: dict[str, Path]) -> None:
        self.record = record
        self.sources = sources

    def points(self) -> np.ndarray:
        """(P, 3) LiDAR points in the LiDAR frame, metres."""
        path = self.sources[self.record.lidar_path]
        points = read_points(path, NUSCENES_POINT_DIMS, 'LiDAR file of the sample', 'the sample folder is incomplete')
        return points[:, :3].astype(np.float64)


def default_shared() -> Path:
    """Where the sample data lies if ``--shared`` is not given."""
    return Path(os.environ.get('OCC_SHARED_DATA') or Path(os.environ.get('OCC_SHARED', ROOT.parent / 'shared')) / 'data')


def read_frames(shared: Path) -> list[SampleFrame]:
    """The two sample frames.

    Raises:
        FileNotFoundError: If a folder or file is missing.
    """
    folder = _folder(shared, 'nuscenes_frame')
    info = next(iter(sorted(folder.glob('*.pkl'))), folder / '<info>.pkl')
    record = _as_first_frame(read_info_file(str(sample_file(info)), with_boxes=True).records[0], 'scene-0061')
    paths = [record.lidar_path, *(camera.img_path for camera in record.cameras.values())]
    frames = [SampleFrame(record, {path: sample_file(folder / Path(path).name) for path in paths})]

    folder = _folder(shared, 'nuscenes_val0_scene0003')
    content = yaml.safe_load(sample_file(folder / 'sample0000.yaml').read_text())
    infos = parse_infos({'infos': [content], 'metadata': {}}, origin=str(folder / 'sample0000.yaml'), with_boxes=True)
    record = _as_first_frame(infos.records[0], 'scene-0003')
    sources = {camera.img_path: sample_file(folder / 'imgs' / f'{name}.jpg') for name, camera in record.cameras.items()}
    sources[record.lidar_path] = sample_file(folder / '0.bin')
    frames.append(SampleFrame(record, sources))
    return frames


def prepare(shared: Path, out: Path) -> list[Path]:
    """Writes the data root and the pictures, see the module.

    Args:
        shared: Folder of the sample data.
        out: Data root to make.

    Returns:
        The overlay pictures.
    """
    frames = read_frames(shared)
    for frame in frames:
        for path, source in frame.sources.items():
            write_atomically(out / 'nuscenes' / path, lambda file, source=source: file.write(source.read_bytes()))
    write_info_file(str(out / 'nuscenes/occ_infos.pkl'), [frame.record for frame in frames], version='v1.0-trainval')

    pictures = []
    for config_path in CONFIGS:
        config = Config.fromfile(str(ROOT / config_path), import_custom_modules=False)
        grid = VoxelGrid.build(config.grid)
        labels = out / config.val_dataloader.dataset.data_prefix.occ
        for frame in frames:
            record = frame.record
            label = make_label([LidarSweep(frame.points(), np.zeros(3))], record, grid)
            if grid.frame == 'ego':
                write_occ3d_label(labels / occ3d_label_path(record), label.semantics, label.mask_lidar, label.mask_camera)
            else:
                write_surroundocc_label(labels / surroundocc_label_path(record), label.semantics, grid)
            picture = out / 'overlays' / f'{record.scene_name}_{labels.relative_to(out).as_posix().replace("/", "_")}.png'
            pixels = overlay(frame, label, grid)
            write_atomically(picture, lambda file, pixels=pixels: file.write(_png(pixels)))
            pictures.append(picture)
            counts = np.bincount(label.semantics.ravel(), minlength=grid.num_classes)
            found = ', '.join(
                f'{grid.class_names[i]} {counts[i]}' for i in np.argsort(-counts) if counts[i] and i != grid.free_index
            )
            print(f'{record.scene_name} {labels}: {found}; seen by a camera {int(label.mask_camera.sum())}', flush=True)
    return pictures


def overlay(frame: SampleFrame, label: OccLabel, grid: VoxelGrid, opacity: float = 0.55, scale: float = 0.5) -> np.ndarray:
    """The six images with the label's voxels laid over them.

    Args:
        frame: The frame.
        label: Its label.
        grid: The label's grid.
        opacity: Of the voxels, 0..1.
        scale: Size of an image in the picture relative to the original.

    Returns:
        (H, W, 3) uint8 RGB, two rows of three images.
    """
    record = frame.record
    colors = np.full((256, 3), 128, dtype=np.uint8)
    for index, name in enumerate(grid.class_names):
        colors[index] = BENCHMARKS['occ3d'].palette.get(name, (255, 255, 255))
    drawn = np.zeros(256, dtype=bool)
    drawn[list(grid.semantic_classes)] = True
    ref2lidar = np.linalg.inv(record.lidar2ego) if grid.frame == 'ego' else np.eye(4)
    rows = []
    for names in PANORAMA:
        views = []
        for name in names:
            camera = record.cameras[name]
            image = mmcv.imread(frame.sources[camera.img_path], channel_order='rgb')
            image = mmcv.imrescale(image, scale, interpolation='area')
            height, width = image.shape[:2]
            ref2img = camera.lidar2cam @ ref2lidar
            ref2img[:3] = np.diag([scale, scale, 1.0]) @ camera.cam2img @ ref2img[:3]
            view = draw_voxels(
                label.semantics,
                colors,
                drawn,
                np.array(grid.lower),
                np.array(grid.voxel_size),
                ref2img,
                width,
                height,
                grid.free_index,
                samples=1,
            )
            picture = np.ascontiguousarray(view.over(image, opacity))
            cv2.putText(picture, name, (10, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
            views.append(picture)
        rows.append(np.concatenate(views, axis=1))
    return np.concatenate(rows, axis=0)


def _as_first_frame(record: FrameRecord, scene: str) -> FrameRecord:
    """The samples are the first frames of their scenes, which their own files do not say."""
    return replace(record, scene_name=scene, frame_idx=0, label_path='')


def _folder(shared: Path, name: str) -> Path:
    if not (shared / name).is_dir():
        raise FileNotFoundError(
            f"sample folder '{shared / name}' does not exist; give the folder that holds it with --shared or the environment "
            'variable OCC_SHARED_DATA'
        )
    return shared / name


def sample_file(path: Path) -> Path:
    """The path of a file that must be there."""
    if not path.is_file():
        raise FileNotFoundError(f"sample file '{path}' does not exist; the sample folder is incomplete")
    return path


def _png(rgb: np.ndarray) -> bytes:
    return cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()


def run(prepare: Callable[[Path, Path], list[Path]], description: str, out: str, argv: list[str] | None = None) -> int:
    """Command line of a script that prepares a sample; returns the exit status.

    Args:
        prepare: Makes the data root from the folder of the samples, and returns the pictures.
        description: Text of the help.
        out: Default of ``--out`` below the repository.
        argv: Arguments, None for those of the process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shared', type=Path, default=default_shared(), help='folder of the sample data [%(default)s]')
    parser.add_argument('--out', type=Path, default=ROOT / out, help='data root to make [%(default)s]')
    args = parser.parse_args(argv)
    try:
        pictures = prepare(args.shared, args.out)
    except (FileNotFoundError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'data root: {args.out}')
    print('look at: ' + ' '.join(str(picture) for picture in pictures))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    return run(prepare, __doc__, 'work_dirs/real_frame', argv)


if __name__ == '__main__':
    sys.exit(main())
