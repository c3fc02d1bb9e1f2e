"""Scores a folder of predictions without a model.

    python tools/eval_predictions.py --preset occ3d --pred DIR --gt data/occ3d_nuscenes/gts --out metrics.json
    python tools/eval_predictions.py --preset occ3d --pred DIR --config configs/_base_/datasets/occ3d-nus.py --ray-iou

Predictions are <token>.npz as tools/test.py --out writes them, in one folder or in a folder per scene, or .npy or (SSCBench)
.label files. Frames and labels come from the label folder (--gt), or from the test set of a config (--config), which also knows
poses and cameras. docs/evaluation.md tells all file names that are found.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from mmdet3d.registry import DATASETS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.datasets.label_formats import read_label  # noqa: E402
from projects.occ.datasets.label_volumes import read_prediction  # noqa: E402
from projects.occ.engine.command_line import CfgOptionsAction, read_config, run_tool  # noqa: E402
from projects.occ.engine.config_options import ALLOW_FLAG  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.engine.metrics_file import write_metrics  # noqa: E402
from projects.occ.evaluation import OccupancyMetric, RayIoUMetric, RayProfileMetric  # noqa: E402
from projects.occ.evaluation.axis_check import AxisCheck  # noqa: E402
from projects.occ.evaluation.ray_origin_files import load_ray_origins  # noqa: E402
from projects.occ.evaluation.saved_predictions import index_predictions, match_predictions  # noqa: E402
from projects.occ.image_files import ImageError, image_size  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS, Benchmark, free_space_elsewhere, get_benchmark  # noqa: E402
from projects.occ.structures.frame_record import size_problem  # noqa: E402

LISTED = 10
SCALE_SUFFIX = '_1_1.npy'


@dataclass
class Frame:
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


def occ3d_frames(gt: Path) -> list[Frame]:
    """``[<scene>/]<token>/labels.npz``."""
    frames = []
    for path in sorted(gt.rglob('labels.npz')):
        token, *above = reversed(path.relative_to(gt).parts[:-1])
        frames.append(_frame(token, above[0] if above else '', path))
    return frames


def surroundocc_frames(gt: Path) -> list[Frame]:
    """``<LiDAR file>.npy``; the LiDAR file's name stands for the token."""
    return [_frame(path.name.removesuffix('.npy'), '', path) for path in sorted(gt.rglob('*.npy'))]


def sscbench_frames(gt: Path) -> list[Frame]:
    """``<drive>/<frame>_1_1.npy``, or else the raw ``<drive>/voxels/<frame>.label``."""
    paths = {path: path.parent.name for path in sorted(gt.rglob(f'*{SCALE_SUFFIX}'))}
    paths = paths or {path: path.parent.parent.name for path in sorted(gt.rglob('voxels/*.label'))}
    frames = []
    for path, drive in paths.items():
        number = path.name.removesuffix(SCALE_SUFFIX).removesuffix('.label')
        frames.append(_frame(f'{drive}_{number}', drive, path, f'{drive}/{number}'))
    return frames


def _frame(token: str, scene: str, label: str | Path, *names: str, **cameras: Any) -> Frame:
    return Frame(token, scene, str(label), (token, f'{scene}/{token}', *names), cameras)


# how the label files of a benchmark are found and named
FINDERS = {
    'occ3d': occ3d_frames,
    'surroundocc': surroundocc_frames,
    'sscbench-kitti360': sscbench_frames,
}


class FrameFiles(Dataset):
    """Reads prediction and label of one frame after the other; runs in loader workers."""

    def __init__(self, frames: Sequence[Frame], predictions: Mapping[str, Path], grid: VoxelGrid) -> None:
        self.frames, self.predictions, self.grid = frames, predictions, grid

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> dict:
        frame = self.frames[index]
        labels, masks = read_label(frame.label, self.grid, f'label of frame {frame.token}')
        sample = dict(masks, token=frame.token, gt_occ=labels, grid=self.grid)
        sample['pred_occ'] = read_prediction(self.predictions[frame.token], self.grid)
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


def _image_size(path: str, frame: Frame) -> tuple[int, int]:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'image metrics need the size of the images, but {path!r} of frame {frame.token} does not exist'
        )
    try:
        return image_size(Path(path).read_bytes())
    except ImageError as error:
        raise ValueError(f'image metrics need the size of the images, but {path!r} of frame {frame.token}: {error}') from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', required=True, choices=tuple(BENCHMARKS), help='protocol: classes, free id, mask, range')
    parser.add_argument('--pred', required=True, metavar='DIR', help='folder of predictions')
    parser.add_argument('--gt', metavar='DIR', help='folder of labels (default: that of --config)')
    parser.add_argument(
        '--config',
        metavar='FILE',
        help='take frames, labels, grid, poses and cameras from the test set of this config; a file of configs/_base_/datasets '
        'will do',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptionsAction, default={}, metavar='KEY=VALUE', help='change values of --config'
    )
    parser.add_argument(ALLOW_FLAG, action='store_true', help='let --cfg-options add keys that the config does not have')
    parser.add_argument('--out', metavar='FILE', help='write the metrics as JSON, as fractions')
    parser.add_argument('--absent', default='exclude', help='classes without a true voxel (default: exclude)')
    parser.add_argument('--ray-iou', action='store_true', help='RayIoU too; needs --origins or --config')
    parser.add_argument(
        '--ray-profile', action='store_true', help='bleeding along rays, floaters and holes too; needs --origins or --config'
    )
    parser.add_argument('--origins', metavar='FILE', help='RayIoU origins (ray_origins_<split>.npz)')
    parser.add_argument('--image-metrics', action='store_true', help='metrics of rendered images too; needs --config')
    parser.add_argument(
        '--image-reduction', type=float, default=1, metavar='R', help='images smaller by this factor; published: 1'
    )
    parser.add_argument('--allow-missing', action='store_true', help='score the frames that have a prediction, not all')
    parser.add_argument('--workers', type=int, default=2, help='processes that read files (default: 2; 0: none)')
    return parser.parse_args(argv)


def read_test_config(args: argparse.Namespace) -> Config:
    """The config of the arguments, with a test set.

    Raises:
        OccError: If it does not exist, cannot be read, or has no test set.
    """
    if not Path(args.config).is_file():
        raise OccError(f'config {args.config!r} does not exist')
    cfg = read_config(args)
    if 'grid' not in (cfg.get('test_dataloader') or {}).get('dataset', {}):
        raise OccError(
            f'config {args.config!r} has no test set with a voxel grid (test_dataloader.dataset.grid); give the config of an '
            'experiment, or a file of configs/_base_/datasets'
        )
    return cfg


def find_frames(args: argparse.Namespace, cfg: Config | None) -> list[Frame]:
    """Frames of the test set of the config, or of the label folder.

    Raises:
        OccError: If there are none.
    """
    if cfg is None:
        if not Path(args.gt).is_dir():
            raise OccError(f'folder of labels {args.gt!r} does not exist')
        frames = FINDERS[args.preset](Path(args.gt))
        if not frames:
            raise OccError(
                f'no label of preset {args.preset!r} lies below {args.gt!r}; expected {get_benchmark(args.preset).label_files}'
            )
        return frames
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': [], 'test_mode': True})
    frames = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        scene, label = info['scene_name'], info['occ_path']
        if args.gt and label:
            # the folders of the data set below another root
            label = str(Path(args.gt) / PurePosixPath(label).relative_to(dataset.data_prefix['occ']))
        names = (PurePosixPath(label).name.removesuffix('.npy'), f'{scene}/{info.get("frame_idx", 0):06d}')
        cameras = {key: info[key] for key in ('ref2cam', 'cam2img', 'cam2img_wh', 'img_paths')} if args.image_metrics else {}
        frames.append(_frame(info['token'], scene, label, *names, **cameras))
    return frames


def build_metrics(args: argparse.Namespace, preset: Benchmark, grid: VoxelGrid, cfg: Config | None) -> list:
    """The metrics that the arguments ask for.

    Raises:
        OccError: If they need something that was not given.
    """
    metrics = [OccupancyMetric(grid, preset=preset.name, absent=args.absent)]
    if args.origins and not (args.ray_iou or args.ray_profile):
        raise OccError('--origins belongs to --ray-iou and --ray-profile, which are not given')
    if args.image_reduction != 1 and not args.image_metrics:
        raise OccError('--image-reduction belongs to --image-metrics, which is not given')
    if args.ray_iou or args.ray_profile:
        if not args.origins and cfg is None:
            asked = '--ray-iou' if args.ray_iou else '--ray-profile'
            raise OccError(f'{asked} needs the places where rays start: give --origins FILE, or --config with a data set')
        origins = load_ray_origins(args.origins or cfg.test_dataloader.dataset, grid)
        if args.ray_iou:
            metrics.append(RayIoUMetric(grid, origins, preset=preset.name))
        if args.ray_profile:
            metrics.append(RayProfileMetric(grid, origins))
    if args.image_metrics:
        if cfg is None:
            raise OccError('--image-metrics needs the cameras of every frame: give --config with a data set')
        from projects.gaussrender.image_metric import RenderedImageMetric

        scale = preset.gaussian_scale(grid)
        metrics.append(RenderedImageMetric(grid, gaussian_scale=scale, reduction=args.image_reduction, absent=args.absent))
    return metrics


def missing_frames(frames: Sequence[Frame], matched: Mapping[str, Path], whole_test_set: bool) -> tuple[list[str], int]:
    """Tokens that should have a prediction, and the number of other labels without one.

    A label folder may hold more than one split: scenes without any prediction are left aside, and where labels have no scenes,
    all without a prediction.
    """
    scored_scenes = {frame.scene for frame in frames if frame.token in matched and frame.scene}
    without = [frame for frame in frames if frame.token not in matched]
    missing = [frame.token for frame in without if whole_test_set or frame.scene in scored_scenes]
    return missing, len(without) - len(missing)


def evaluate(args: argparse.Namespace) -> None:
    """Scores as the arguments say.

    Raises:
        OccError: If predictions, labels and preset do not fit together.
    """
    if not args.gt and not args.config:
        raise OccError('where are the labels? Give --gt DIR, or --config FILE')
    if args.out:
        if Path(args.out).is_dir():
            raise OccError(f'--out {args.out!r} is a folder; name the file to write')
        check_writable(Path(args.out).parent, '--out')
    init_default_scope('mmdet3d')
    cfg = read_test_config(args) if args.config else None
    preset = get_benchmark(args.preset)
    grid = preset.grid if cfg is None else VoxelGrid.build(cfg.test_dataloader.dataset.grid)
    metrics = build_metrics(args, preset, grid, cfg)
    predictions = index_predictions(args.pred)
    frames = find_frames(args, cfg)
    names = {frame.token: frame for frame in frames}
    if len(names) < len(frames):
        twice = next(frame for frame in frames if names[frame.token] is not frame)
        raise OccError(
            f'{len(frames) - len(names)} tokens have several labels and would count several times, such as {twice.token}: '
            f'{twice.label} and {names[twice.token].label}; keep one of them below --gt'
        )
    matched, extra = match_predictions({frame.token: frame.names for frame in frames}, predictions)
    if not matched:
        raise OccError(
            f'none of the {len(predictions)} predictions (such as {_some(list(predictions), 1)}) is named like one of the '
            f'{len(frames)} labels (such as {frames[0].token}); names are matched by token'
            + ('' if cfg else ', which --config can look up')
        )
    missing, other = missing_frames(frames, matched, cfg is not None)
    for what, names in (('frames without a prediction', missing), ('predictions without a label, left out', extra)):
        if names:
            print(f'{len(names)} {what}: {_some(names)}')
    if other:
        print(
            f'{other} more labels, of scenes without any prediction or without a known scene, are left out as those of another '
            'split; only --config knows the whole test set'
        )
    if missing and not args.allow_missing:
        raise OccError(
            f'{len(missing)} of {len(missing) + len(matched)} frames have no prediction: {_some(missing)}; add '
            '--allow-missing to score the others'
        )
    scored = [frame for frame in frames if frame.token in matched]
    check_origins(args, metrics, scored)
    axes = AxisCheck(grid)
    single, counts = process(metrics, axes, FrameFiles(scored, matched, grid), args.workers, grid)
    if single:
        print(f'{len(single)} of {len(scored)} predictions hold one class alone: {_some(list(single.items()))}')
    results: dict[str, Any] = {}
    for metric in metrics:
        results.update(metric.evaluate(len(scored)))
    if all(np.isnan(value) for key, value in results.items() if key.split('/')[-1] in ('mIoU', 'IoU')):
        raise OccError(
            f'nothing was counted: every voxel of the {len(scored)} labels is ignored, or lies outside the mask '
            f'{preset.mask!r} that preset {preset.name!r} scores with; labels made without cameras have an empty camera mask'
        )
    mask_like = 'all predictions hold 0 and 1 alone, which are counted as two classes and not as free and occupied'
    hints = [free_space_elsewhere(counts, grid), axes.sentence()]
    hints.append(mask_like if grid.num_classes > 2 and counts[:2].all() and not counts[2:].any() else '')
    for hint in hints:
        if hint:
            print(f'warning: {hint}')
    report = dict(
        results,
        frames=len(scored),
        missing_frames=missing,
        left_out_labels=other,
        extra_predictions=extra,
        single_class_frames=list(single),
    )
    if args.out:
        source = {key: getattr(args, key) for key in ('preset', 'pred', 'gt', 'config', 'origins')}
        write_metrics(args.out, report, source=source)


def check_origins(args: argparse.Namespace, metrics: Sequence, frames: Sequence[Frame]) -> None:
    """Raises OccError if --origins lacks frames that are going to be scored."""
    if not args.origins:
        return
    known = next(metric.origins for metric in metrics if isinstance(metric, (RayIoUMetric, RayProfileMetric)))
    without = [frame.token for frame in frames if frame.token not in known]
    if without:
        remedy = 'make them from all frames of the split (docs/evaluation.md, "RayIoU")'
        if args.preset == 'surroundocc' and not args.config:
            remedy = 'these labels are named after their LiDAR files, so give --config, which knows their tokens'
        raise OccError(
            f'--origins {args.origins!r} has no origins for {len(without)} of {len(frames)} frames: {_some(without)}; {remedy}'
        )


def process(
    metrics: Sequence, axes: AxisCheck, files: FrameFiles, workers: int, grid: VoxelGrid
) -> tuple[dict[str, str], np.ndarray]:
    """Feeds every frame to the metrics.

    Returns:
        Token -> class of predictions that hold one class alone, and the number of voxels by predicted class, (C,) int64.
    """
    loader = DataLoader(files, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    single = {}
    counts = np.zeros(grid.num_classes, dtype=np.int64)
    for sample in tqdm(loader, desc='scoring', unit='frame'):
        pred = sample['pred_occ']
        counts += np.bincount(pred.reshape(-1), minlength=grid.num_classes)
        if pred.min() == pred.max():
            single[sample['token']] = grid.class_names[int(pred.flat[0])]
        axes.add(pred, sample['gt_occ'])
        for metric in metrics:
            metric.process({}, [sample])
    return single, counts


def _as_it_is(sample: dict) -> dict:
    return sample


def _some(items: Sequence, limit: int = LISTED) -> str:
    shown = [f'{item[0]} ({item[1]})' if isinstance(item, tuple) else str(item) for item in items[:limit]]
    return ', '.join(shown) + (f' and {len(items) - limit} more' if len(items) > limit else '')


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    args = parse_args(argv)
    args.trust_checkpoint = False
    return run_tool(evaluate, args)


if __name__ == '__main__':
    sys.exit(main())
