"""Writes the annotation files of recordings that lie as docs/add_a_dataset.md shows."""

import json
from pathlib import Path

import numpy as np

from projects.occ.structures.frame_record import CameraRecord, FrameRecord
from projects.preparation.info_writer import write_info_file


def read_recordings(root: Path) -> list[FrameRecord]:
    """Every labelled frame of ``root``, in the order of the names.

    ``calibration.json`` holds of every camera by its name ``cam2img`` (3, 3), pixels with the centre of the first one at 0.5,
    and ``cam2ref`` (4, 4), camera (x right, y down, z forward) -> reference frame (x ahead, y left, z up), metres.
    """
    calibration = json.loads((root / 'calibration.json').read_text())
    records = []
    for label in sorted((root / 'labels').glob('*.npz')):
        cameras = {}
        for name, camera in calibration.items():
            cam2ref = np.array(camera['cam2ref'], dtype=np.float64)
            cameras[name] = CameraRecord(
                img_path=f'images/{name}/{label.stem}.jpg',
                cam2img=np.array(camera['cam2img'], dtype=np.float64),
                # without a LiDAR its frame is the reference frame, and so is the ego frame
                lidar2cam=np.linalg.inv(cam2ref),
                cam2ego=cam2ref,
                ego2global=np.eye(4),
            )
        records.append(
            FrameRecord(
                token=label.stem,
                timestamp=float(len(records)),
                lidar2ego=np.eye(4),
                ego2global=np.eye(4),
                cameras=cameras,
                label_path=label.name,
            )
        )
    return records


def write_annotations(root: str | Path, val_share: float = 0.2) -> None:
    """Writes ``infos_train.pkl`` and ``infos_val.pkl`` of the recordings in ``root``; the last frames are for validation."""
    root = Path(root)
    records = read_recordings(root)
    first = len(records) - max(1, round(val_share * len(records)))
    write_info_file(str(root / 'infos_train.pkl'), records[:first], version='recordings')
    write_info_file(str(root / 'infos_val.pkl'), records[first:], version='recordings')
