"""Scores a folder of predictions without a model.

    python tools/eval_predictions.py --preset occ3d --pred DIR --gt data/occ3d_nuscenes/gts --out metrics.json
    python tools/eval_predictions.py --preset occ3d --pred DIR --config configs/_base_/datasets/occ3d-nus.py --ray-iou
    python tools/eval_predictions.py --pred DIR --config my_dataset.py --mask lidar      # data of your own

Predictions are <token>.npz as tools/test.py --out writes them, in one folder or in a folder per scene, or .npy or (SSCBench)
.label files. Frames and labels come from the label folder (--gt), or from the test set of a config (--config), which also knows
poses and cameras. docs/evaluation.md tells all file names that are found.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from mmdet3d.registry import DATASETS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.datasets.label_volumes import read_stored_grid  # noqa: E402
from projects.occ.datasets.scored_frames import (  # noqa: E402
    FrameFiles,
    ScoredFrame,
    any_frames,
    layout_frames,
    scored_frame,
)
from projects.occ.engine.command_line import CfgOptionsAction, read_config, run_tool  # noqa: E402
from projects.occ.engine.config_options import ALLOW_FLAG  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.engine.metrics_file import write_metrics  # noqa: E402
from projects.occ.evaluation import OccupancyMetric, RayIoUMetric, RayProfileMetric  # noqa: E402
from projects.occ.evaluation.axis_check import AxisCheck  # noqa: E402
from projects.occ.evaluation.occupancy_metric import class_ids  # noqa: E402
from projects.occ.evaluation.ray_origin_files import load_ray_origins  # noqa: E402
from projects.occ.evaluation.saved_predictions import index_predictions, match_predictions  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS, Benchmark, free_space_elsewhere, get_benchmark  # noqa: E402
from projects.occ.structures.masks import MASK_FIELDS  # noqa: E402

LISTED = 10
KEPT = 'mIoU_kept'
PROTOCOL = ('preset', 'pred', 'gt', 'config', 'origins', 'mask', 'region', 'leave_out', 'map', 'map_gt')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--preset',
        choices=tuple(BENCHMARKS),
        help='protocol: classes, free id, mask, range (default: data of your own, of the grid that --config or the predictions '
        'tell)',
    )
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
    parser.add_argument(
        '--mask', choices=tuple(MASK_FIELDS), help="voxels that count (default: the preset's, without one: none, which is all)"
    )
    parser.add_argument(
        '--region',
        type=float,
        nargs=6,
        metavar=('X0', 'Y0', 'Z0', 'X1', 'Y1', 'Z1'),
        help='mIoU and IoU of the voxels in this box alone, metres',
    )
    parser.add_argument(
        '--leave-out',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='classes (names or ids) that take no part in a further mean, mIoU_kept',
    )
    for option, what in (('--map', 'predictions'), ('--map-gt', 'labels')):
        parser.add_argument(
            option,
            nargs='+',
            default=[],
            metavar='FROM=TO',
            help=f'classes of {what} to count as others, ids or names of the grid; TO may be ignore for labels',
        )
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


def find_frames(args: argparse.Namespace, cfg: Config | None) -> list[ScoredFrame]:
    """Frames of the test set of the config, or of the label folder.

    Raises:
        OccError: If there are none.
    """
    if cfg is None:
        if not Path(args.gt).is_dir():
            raise OccError(f'folder of labels {args.gt!r} does not exist')
        gt = Path(args.gt)
        frames = layout_frames(gt, get_benchmark(args.preset).label_files) if args.preset else any_frames(gt)
        if not frames:
            expected = (
                get_benchmark(args.preset).label_files if args.preset else '<token>.npz, <token>/labels.npz or <token>.npy'
            )
            raise OccError(f'no label of preset {args.preset!r} lies below {args.gt!r}; expected {expected}')
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
        frames.append(scored_frame(info['token'], scene, label, *names, **cameras))
    return frames


def choose_grid(args: argparse.Namespace, preset: Benchmark | None, cfg: Config | None, prediction: Path) -> VoxelGrid:
    """The grid of the config, of the preset, or that the first prediction tells.

    Raises:
        OccError: If nothing tells it.
    """
    if cfg is not None:
        return VoxelGrid.build(cfg.test_dataloader.dataset.grid)
    grid = read_stored_grid(prediction) if preset is None else preset.grid
    if grid is None:
        raise OccError(
            f"which grid and classes are these? '{prediction}' does not tell; give --config FILE of the data set, --preset, or "
            'predictions of tools/test.py --out, which tell their grid'
        )
    return grid


def read_map(pairs: Sequence[str], grid: VoxelGrid, option: str, ignorable: bool = False) -> dict[int, int]:
    """Class ids of ``FROM=TO`` pairs.

    Raises:
        ValueError: If a pair is none, or names a class that the grid does not have.
    """
    ids = {}
    for pair in pairs:
        source, _, target = pair.partition('=')
        if not source or not target:
            raise ValueError(f'{option} expects FROM=TO, such as 0=17 or car=vehicle, got {pair!r}')
        # files of others may have ids that the grid does not have
        known = int(source) if source.isdigit() and int(source) < 256 else class_ids([source], grid, option)[0]
        ids[known] = grid.ignore_index if ignorable and target == 'ignore' else class_ids([target], grid, option)[0]
    return ids


def build_metrics(args: argparse.Namespace, preset: Benchmark | None, grid: VoxelGrid, cfg: Config | None) -> list:
    """The metrics that the arguments ask for.

    Raises:
        OccError: If they need something that was not given.
    """
    name = None if preset is None else preset.name
    # another mask is another protocol on the same grid
    same = preset is not None and args.mask in (None, preset.mask)
    options = dict(absent=args.absent, region=args.region)
    if args.leave_out:
        left_out = class_ids(args.leave_out, grid, '--leave-out')
        options['excluding'] = {KEPT: [grid.class_names[index] for index in left_out]}
    metrics = [OccupancyMetric(grid, preset=name if same else None, mask=None if same else args.mask, **options)]
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
            metrics.append(RayIoUMetric(grid, origins, preset=name))
        if args.ray_profile:
            metrics.append(RayProfileMetric(grid, origins))
    if args.image_metrics:
        if cfg is None:
            raise OccError('--image-metrics needs the cameras of every frame: give --config with a data set')
        from projects.gaussrender.image_metric import RenderedImageMetric

        # half a voxel, as the published metrics of most benchmarks
        scale = 0.5 * min(grid.voxel_size) if preset is None else preset.gaussian_scale(grid)
        metrics.append(RenderedImageMetric(grid, gaussian_scale=scale, reduction=args.image_reduction, absent=args.absent))
    return metrics


def missing_frames(frames: Sequence[ScoredFrame], matched: Mapping[str, Path], whole_test_set: bool) -> tuple[list[str], int]:
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
    preset = get_benchmark(args.preset) if args.preset else None
    predictions = index_predictions(args.pred)
    grid = choose_grid(args, preset, cfg, next(iter(predictions.values())))
    metrics = build_metrics(args, preset, grid, cfg)
    files = dict(
        masks=MASK_FIELDS[metrics[0].mask],
        pred_ids=read_map(args.map, grid, '--map'),
        label_ids=read_map(args.map_gt, grid, '--map-gt', ignorable=True),
    )
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
    single, counts = process(metrics, axes, FrameFiles(scored, matched, grid, **files), args.workers, grid)
    if single:
        print(f'{len(single)} of {len(scored)} predictions hold one class alone: {_some(list(single.items()))}')
    results: dict[str, Any] = {}
    for metric in metrics:
        results.update(metric.evaluate(len(scored)))
    if all(np.isnan(value) for key, value in results.items() if key.split('/')[-1] in ('mIoU', 'IoU')):
        raise OccError(
            f'nothing was counted: every voxel of the {len(scored)} labels is ignored, or lies outside the mask '
            f'{metrics[0].mask!r}, --region or the classes that are scored; labels made without cameras have an empty camera '
            'mask: score them with --mask none or --mask lidar'
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
        source = {key: getattr(args, key) for key in PROTOCOL}
        write_metrics(args.out, report, source=source)


def check_origins(args: argparse.Namespace, metrics: Sequence, frames: Sequence[ScoredFrame]) -> None:
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
