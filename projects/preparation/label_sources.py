"""Scenes to make labels of: from an annotation file with LiDAR files, or from a folder of frames in plain arrays."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from projects.occ.datasets.info_formats import read_info_file
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.point_classes import read_lidarseg
from projects.occ.file_arrays import load_arrays
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES
from projects.occ.structures.frame_record import BoxRecord, FrameRecord, rigid
from projects.preparation.label_aggregation import LidarFrame

_ARRAYS = (
    'points',
    'lidar2ego_translation',
    'lidar2ego_rotation_wxyz',
    'ego2global_translation',
    'ego2global_rotation_wxyz',
    'boxes',
    'box_category',
    'box_instance',
)


@dataclass
class LabelScene:
    """Key frames of a scene in time order.

    Attributes:
        records: With boxes, of the classes that the benchmarks have.
        nuscenes: Folder that the records' LiDAR and lidarseg paths are relative to, or None if ``files`` holds the frames.
        files: One ``.npz`` per frame, or empty.
        use_semantics: Whether point classes are read where there are some.
    """

    records: list[FrameRecord]
    nuscenes: Path | None = None
    files: list[Path] = field(default_factory=list)
    use_semantics: bool = True

    def load(self, index: int) -> LidarFrame:
        """Points of a frame.

        Raises:
            FileNotFoundError: If a LiDAR or lidarseg file is missing.
            ValueError: If one is damaged.
        """
        record = self.records[index]
        semantics = None
        if self.nuscenes is None:
            arrays = _load(self.files[index])
            points = arrays['points'].astype(np.float64)
            if self.use_semantics and 'semantics' in arrays:
                semantics = arrays['semantics']
        else:
            path = self.nuscenes / record.lidar_path
            points = read_points(path, NUSCENES_POINT_DIMS, 'LiDAR file', "label making needs nuScenes' samples/LIDAR_TOP")
            points = points[:, :3].astype(np.float64)
            if self.use_semantics and record.lidarseg_path:
                semantics = read_lidarseg(self.nuscenes / record.lidarseg_path, len(points))
        return LidarFrame(points, record.ego2global @ record.lidar2ego, record.boxes, semantics)


def scenes_from_infos(path: str | Path, nuscenes: str | Path, use_semantics: bool = True) -> list[LabelScene]:
    """Scenes of an annotation file.

    Args:
        path: Annotation file with boxes and scene names, e.g. one made by ``tools/create_data.py occ3d``.
        nuscenes: Folder of ``samples/LIDAR_TOP`` and perhaps ``lidarseg``.
        use_semantics: Read lidarseg where the annotation file names it.

    Raises:
        ValueError: If the file is damaged, or has no boxes or scene names.
    """
    info_file = read_info_file(str(path), with_boxes=True)
    scenes: dict[str, list[FrameRecord]] = defaultdict(list)
    for record in info_file.records:
        if not record.scene_name:
            raise ValueError(
                f'{path}: frame {record.token} has no scene name, so it is unknown which frames belong together; make the file '
                'with tools/create_data.py, or add scene names with convert-infos --gts'
            )
        record.boxes = _known_boxes(record.boxes)
        scenes[record.scene_name].append(record)
    for records in scenes.values():
        records.sort(key=lambda record: record.timestamp)
    return [LabelScene(records, nuscenes=Path(nuscenes), use_semantics=use_semantics) for records in scenes.values()]


def scene_from_folder(folder: str | Path, use_semantics: bool = True) -> LabelScene:
    """A scene of plain arrays, ``<frame>.npz`` sorted by name; the scene is named after the folder, frames after the files.

    Each file has ``points`` (P, 3) metres in the LiDAR frame; ``lidar2ego_translation`` (3,), ``lidar2ego_rotation_wxyz`` (4,)
    and the same of ``ego2global``; ``boxes`` (K, 7) in the LiDAR frame: x, y, z of the centre of the *bottom*, size along x, y,
    z at yaw 0, yaw; ``box_category`` (K,) class ids 1..16; ``box_instance`` (K,) names of the objects; perhaps ``semantics``
    (P,) class ids, 0 where unknown, and ``timestamp_us``.

    Args:
        folder: With the files.
        use_semantics: Use ``semantics`` where it exists.

    Raises:
        FileNotFoundError: If the folder has no ``.npz``.
        ValueError: If a file is damaged or lacks an array.
    """
    folder = Path(folder)
    files = sorted(folder.glob('*.npz'))
    if not files:
        raise FileNotFoundError(f'\'{folder}\' has no <frame>.npz files (docs/datasets.md, "Label making")')
    return LabelScene([_record(path, index) for index, path in enumerate(files)], files=files, use_semantics=use_semantics)


def _record(path: Path, index: int) -> FrameRecord:
    arrays = _load(path)
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f'\'{path}\' lacks the arrays {missing} (docs/datasets.md, "Label making")')
    boxes = arrays['boxes'].astype(np.float64).reshape(-1, 7)
    boxes[:, 2] += boxes[:, 5] / 2
    classes = arrays['box_category'].tolist()
    if any(not 1 <= class_id <= len(NUSCENES_CLASSES) for class_id in classes):
        raise ValueError(f"'{path}': box_category must be class ids 1..{len(NUSCENES_CLASSES)}, got {sorted(set(classes))}")
    names = [NUSCENES_CLASSES[class_id - 1] for class_id in classes]
    return FrameRecord(
        token=path.stem,
        timestamp=float(arrays['timestamp_us']) / 1e6 if 'timestamp_us' in arrays else float(index),
        lidar_path=f'{path.stem}.pcd.bin',
        lidar2ego=rigid(arrays['lidar2ego_rotation_wxyz'], arrays['lidar2ego_translation']),
        ego2global=rigid(arrays['ego2global_rotation_wxyz'], arrays['ego2global_translation']),
        scene_name=path.parent.name,
        frame_idx=index,
        label_path=f'{path.stem}.npy',
        boxes=BoxRecord(boxes, names, instance_tokens=[str(name) for name in arrays['box_instance']]),
    )


def _known_boxes(boxes: BoxRecord | None) -> BoxRecord:
    """Boxes of the benchmarks' classes; strollers and the like are left to the classes of their points."""
    if boxes is None:
        raise ValueError('the annotation file has no boxes, which label making needs')
    kept = [index for index, name in enumerate(boxes.names) if name in NUSCENES_CLASSES]
    tokens = boxes.instance_tokens
    return BoxRecord(
        boxes.boxes[kept],
        [boxes.names[index] for index in kept],
        instance_tokens=None if tokens is None else [tokens[index] for index in kept],
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    return load_arrays(path, 'frame', 'it must be an .npz of arrays (docs/datasets.md, "Label making")')
