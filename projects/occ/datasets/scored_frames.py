"""Frames whose saved predictions are scored against label files, and how both are found and read."""

import re
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


def layout_frames(gt: Path, layouts: str) -> list[ScoredFrame]:
    """Labels that lie as a benchmark says.

    Args:
        gt: Folder of labels; what it holds may also begin below the first folder of the layout.
        layouts: ``Benchmark.label_files``: paths with ``<...>`` where names stand, separated by " or "; the first one that has
            files is taken. The last name is that of the frame; one called ``<frame>`` is a number that its drive makes unique.
    """
    for layout in layouts.split(' or '):
        parts = layout.split('/')
        pattern = re.sub('<.*?>', '*', '/'.join(parts[1:] or parts))
        frames = [_frame_of(path, parts, gt) for path in sorted(gt.rglob(pattern))]
        if frames:
            return frames
    return []


def _frame_of(path: Path, parts: Sequence[str], gt: Path) -> ScoredFrame:
    found = path.absolute().parts[-len(parts) :]
    ends = [(part, *re.split('<.*?>', layout)) for part, layout in zip(found, parts, strict=True) if '<' in layout]
    name = [part[len(head) : len(part) - len(tail)] for part, head, tail in ends][-1]
    numbered = '<frame>' in parts[-1]
    known = len(parts) > 1 and (numbered or len(path.relative_to(gt).parts) >= len(parts))
    scene = found[0] if known else ''
    if numbered:
        return scored_frame(f'{scene}_{name}', scene, path, f'{scene}/{name}')
    return scored_frame(name, scene, path)


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
