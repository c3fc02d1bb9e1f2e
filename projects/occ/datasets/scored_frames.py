"""Frames whose saved predictions are scored against label files, and how both are found and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from projects.occ.image_files import ImageError, image_size
from projects.occ.structures import VoxelGrid
from projects.occ.structures.frame_record import size_problem

from .label_formats import read_label
from .label_volumes import read_prediction

SCALE_SUFFIX = '_1_1.npy'


@dataclass
class ScoredFrame:
    """A frame to score.

    Attributes:
        token: Its name in reports.
        scene: Scene or drive, '' if unknown.
        label: Label file.
        names: Names that its prediction may have, see ``index_predictions``.
        cameras: ``ref2cam``, ``cam2img``, ``cam2img_wh`` and ``img_paths``, or empty.
    """

    token: str
    scene: str
    label: str
    names: tuple[str, ...]
    cameras: dict[str, Any] = field(default_factory=dict)


def occ3d_frames(gt: Path) -> list[ScoredFrame]:
    """``[<scene>/]<token>/labels.npz``."""
    frames = []
    for path in sorted(gt.rglob('labels.npz')):
        token, *above = reversed(path.relative_to(gt).parts[:-1])
        frames.append(scored_frame(token, above[0] if above else '', path))
    return frames


def surroundocc_frames(gt: Path) -> list[ScoredFrame]:
    """``<LiDAR file>.npy``; the LiDAR file's name stands for the token."""
    return [scored_frame(path.name.removesuffix('.npy'), '', path) for path in sorted(gt.rglob('*.npy'))]


def sscbench_frames(gt: Path) -> list[ScoredFrame]:
    """``<drive>/<frame>_1_1.npy``, or else the raw ``<drive>/voxels/<frame>.label``."""
    paths = {path: path.parent.name for path in sorted(gt.rglob(f'*{SCALE_SUFFIX}'))}
    paths = paths or {path: path.parent.parent.name for path in sorted(gt.rglob('voxels/*.label'))}
    frames = []
    for path, drive in paths.items():
        number = path.name.removesuffix(SCALE_SUFFIX).removesuffix('.label')
        frames.append(scored_frame(f'{drive}_{number}', drive, path, f'{drive}/{number}'))
    return frames


def any_frames(gt: Path) -> list[ScoredFrame]:
    """Labels of one's own: ``<token>/labels.npz`` or files named by their token, ``.npz`` or ``.npy``, in folders or not."""
    frames = []
    for path in sorted(path for path in gt.rglob('*') if path.suffix in ('.npz', '.npy')):
        parts = path.relative_to(gt).parts
        names = [*parts[:-1], path.stem]
        if path.stem == 'labels' and len(parts) > 1:
            names = names[:-1]
        frames.append(scored_frame(names[-1], names[-2] if len(names) > 1 else '', path, '/'.join(names)))
    return frames


def scored_frame(token: str, scene: str, label: str | Path, *names: str, **cameras: Any) -> ScoredFrame:
    return ScoredFrame(token, scene, str(label), (token, f'{scene}/{token}', *names), cameras)


# how the label files of a benchmark are found and named; others by :func:`any_frames`
FINDERS = {
    'occ3d': occ3d_frames,
    'surroundocc': surroundocc_frames,
    'sscbench-kitti360': sscbench_frames,
}


class FrameFiles(Dataset):
    """Reads prediction and label of one frame after the other; runs in loader workers.

    Args:
        frames: The frames.
        predictions: Token -> file.
        grid: Grid of both.
        masks: Masks that a label must hold.
        pred_ids: Class id in a prediction -> class id of ``grid``, see :func:`read_prediction`.
        label_ids: Class id in a label -> class id of ``grid``, or its ignored label.
    """

    def __init__(
        self,
        frames: Sequence[ScoredFrame],
        predictions: Mapping[str, Path],
        grid: VoxelGrid,
        masks: Sequence[str] = (),
        pred_ids: Mapping[int, int] | None = None,
        label_ids: Mapping[int, int] | None = None,
    ) -> None:
        self.frames, self.predictions, self.grid, self.masks = frames, predictions, grid, tuple(masks)
        self.pred_ids = dict(pred_ids or {})
        self.label_ids = np.arange(256, dtype=np.uint8)
        for source, target in (label_ids or {}).items():
            self.label_ids[source] = target

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict:
        frame = self.frames[index]
        labels, masks = read_label(frame.label, self.grid, f'label of frame {frame.token}', masks=self.masks)
        sample = dict(masks, token=frame.token, gt_occ=self.label_ids[labels], grid=self.grid)
        sample['pred_occ'] = read_prediction(self.predictions[frame.token], self.grid, self.pred_ids)
        if frame.cameras:
            sample.update({key: np.asarray(frame.cameras[key], dtype=np.float32) for key in ('ref2cam', 'cam2img')})
            sizes = []
            for path, cam2img, expected in zip(*(frame.cameras[key] for key in ('img_paths', 'cam2img', 'cam2img_wh'))):
                sizes.append(_image_size(path, frame))
                problem = size_problem(cam2img, sizes[-1], expected)
                if problem and min(expected) > 0:
                    raise ValueError(f'image metrics of frame {frame.token}: {path!r} {problem}')
            sample['ori_img_wh'] = np.array(sizes, dtype=np.float32)
        return sample


def _image_size(path: str, frame: ScoredFrame) -> tuple[int, int]:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'image metrics need the size of the images, but {path!r} of frame {frame.token} does not exist'
        )
    try:
        return image_size(Path(path).read_bytes())
    except ImageError as error:
        raise ValueError(f'image metrics need the size of the images, but {path!r} of frame {frame.token}: {error}') from error
