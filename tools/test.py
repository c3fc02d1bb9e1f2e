"""Tests a model: ``python tools/test.py CONFIG CHECKPOINT``; see ``--help``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet3d.registry import TRANSFORMS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import RUNNERS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from projects.occ.datasets.lidar_points import point_dims_of  # noqa: E402
from projects.occ.engine.bare_model import bare_model  # noqa: E402
from projects.occ.engine.checkpoint import check_checkpoint_file  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.distributed import prepare_launch  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.evaluators import as_list, find_evaluator  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.engine.metrics_file import write_metrics  # noqa: E402
from projects.occ.evaluation.frame_records import FrameRecords  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import get_benchmark  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description='Test a model')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file; trained with or without rendering supervision')
    add_common_arguments(parser)
    parser.add_argument(
        '--out', metavar='DIR', help='write predictions as DIR/<token>.npz, key pred, (X, Y, Z) uint8 class ids'
    )
    parser.add_argument('--save-logits', action='store_true', help='with --out: key logits too, (C, X, Y, Z) float16')
    parser.add_argument('--metrics-json', metavar='FILE', help='write the metrics as fractions')
    parser.add_argument(
        '--records', metavar='FILE', help='write what every metric keeps of each frame, for intervals (npz; one process)'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='average the predictions for mirrored images and mirrored axes of the grid (FlipTTA); up to 8 times as slow',
    )
    parser.add_argument(
        '--no-labels',
        action='store_true',
        help='predict frames that have no labels: nothing is scored; needs --out or --show-dir',
    )
    parser.add_argument('--ray-iou', action='store_true', help='RayIoU too (published for Occ3D-nuScenes)')
    parser.add_argument(
        '--ray-profile',
        action='store_true',
        help='bleeding along rays, floaters and holes too (docs/evaluation.md, "Along rays")',
    )
    parser.add_argument(
        '--origins',
        metavar='FILE',
        help='where rays of --ray-iou and --ray-profile start (default: computed from the poses of the test set of the config)',
    )
    parser.add_argument(
        '--depth-metrics',
        action='store_true',
        help='depth of every camera against LiDAR too, rendered from the prediction; --image-reduction makes images smaller',
    )
    parser.add_argument(
        '--image-metrics', action='store_true', help="metrics of rendered images too: camera and bird's-eye mIoU, depth error"
    )
    parser.add_argument(
        '--image-reduction', type=float, default=1, metavar='R', help='render images smaller by this factor; published: 1'
    )
    parser.add_argument(
        '--show-dir', metavar='DIR', help='write pictures of every default_hooks.visualization.interval-th sample to DIR'
    )
    parser.add_argument(
        '--show-video',
        choices=['gif', 'mp4'],
        help='with --show-dir: also DIR/<scene>.gif or .mp4 of all samples, prediction, ground truth and errors side by side',
    )
    parser.add_argument('--show', action='store_true', help='show these pictures in windows; needs a display')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays')
    return parser.parse_args(argv)


def drop_labels(cfg: Config, args: argparse.Namespace) -> None:
    """Takes what reads labels out of the test pipeline, and the metrics, which need them.

    Raises:
        OccError: If nothing would be written, or an option asks for a metric.
    """
    asked = [flag for flag in ('ray_iou', 'ray_profile', 'depth_metrics', 'image_metrics') if getattr(args, flag)]
    if asked:
        raise OccError(f'--no-labels leaves nothing to compare with, which --{asked[0].replace("_", "-")} needs')
    if not (args.out or args.show_dir):
        raise OccError('--no-labels predicts alone: give --out DIR or --show-dir DIR')
    pipeline = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [
        step for step in pipeline if getattr(TRANSFORMS.get(step['type']), 'reads', None) != 'label'
    ]
    cfg.test_evaluator = []


def add_output_hooks(cfg: Config, args: argparse.Namespace) -> None:
    """Adds the hooks that the arguments ask for, and makes loading strict."""
    cfg.default_hooks.checkpoint_keys = dict(type='CheckpointKeyHook', strict=True)
    if args.out:
        cfg.default_hooks.prediction_writer = dict(type='PredictionWriterHook', out_dir=args.out, logits=args.save_logits)
    if args.show_dir or args.show:
        hook = cfg.default_hooks.setdefault('visualization', dict(type='OccVisualizationHook'))
        hook.update(draw=True, show=args.show, wait_time=args.wait_time, out_dir=args.show_dir)
        if args.show_video:
            hook.update(video=args.show_video)


def add_metrics(cfg: Config, args: argparse.Namespace) -> None:
    """Appends the metrics that the arguments ask for to ``test_evaluator``, with grid and preset of its OccupancyMetric.

    Raises:
        OccError: If the config has no OccupancyMetric, or an option comes without the metric that it belongs to.
    """
    if args.origins and not (args.ray_iou or args.ray_profile):
        raise OccError('--origins belongs to --ray-iou and --ray-profile, which are not given')
    if args.image_reduction != 1 and not (args.image_metrics or args.depth_metrics):
        raise OccError('--image-reduction belongs to --image-metrics and --depth-metrics, which are not given')
    if not (args.ray_iou or args.ray_profile or args.image_metrics or args.depth_metrics):
        return
    voxels = find_evaluator(
        cfg.test_evaluator,
        'OccupancyMetric',
        'from which --ray-iou, --ray-profile, --depth-metrics and --image-metrics take grid and preset; write the metrics into '
        'test_evaluator (docs/evaluation.md, "Several metrics in one run")',
    )
    name, grid = voxels.get('preset'), voxels['grid']
    extra = []
    origins = args.origins or cfg.test_dataloader.dataset
    # imported to be registered, whatever custom_imports of the config says
    if args.ray_iou:
        import projects.occ.evaluation.ray_iou_metric  # noqa: F401

        extra.append(dict(type='RayIoUMetric', grid=grid, preset=name, origins=origins))
    if args.ray_profile:
        import projects.occ.evaluation.ray_profile_metric  # noqa: F401

        extra.append(dict(type='RayProfileMetric', grid=grid, origins=origins))
    if args.depth_metrics:
        import projects.occ.evaluation.rendered_depth_metric  # noqa: F401

        load_measured_depth(cfg.test_dataloader.dataset)
        extra.append(dict(type='RenderedDepthMetric', grid=grid, reduction=args.image_reduction))
    if args.image_metrics:
        import projects.gaussrender.image_metric  # noqa: F401

        scale = get_benchmark(name).gaussian_scale(VoxelGrid.build(grid)) if name else None
        absent = voxels.get('absent', 'exclude')
        images = dict(gaussian_scale=scale, reduction=args.image_reduction, absent=absent)
        extra.append(dict(type='RenderedImageMetric', grid=grid, **images))
    known = {metric['type'] for metric in extra}
    # what the config configures itself gives way to the flag
    cfg.test_evaluator = [metric for metric in as_list(cfg.test_evaluator) if metric.get('type') not in known] + extra


def load_measured_depth(dataset: dict) -> None:
    """Lets the pipeline of a data set load the LiDAR points that its cameras see, unless it does.

    Raises:
        OccError: If the pipeline does not end in PackOccInputs.
    """
    pipeline = dataset.get('pipeline') or []
    if not pipeline or pipeline[-1]['type'] != 'PackOccInputs':
        raise OccError('--depth-metrics needs a test pipeline that ends in PackOccInputs; this config has another one')
    *steps, pack = pipeline
    if not any(step['type'] == 'LoadDepthPixels' for step in steps):
        steps.append(dict(type='LoadDepthPixels', point_dims=point_dims_of(dataset)))
    keys = tuple(pack.get('extra_meta_keys', ()))
    dataset['pipeline'] = [
        *steps,
        dict(pack, extra_meta_keys=(*(key for key in keys if key != 'depth_pixels'), 'depth_pixels')),
    ]


def hand_logits_to_metrics(runner: Runner) -> None:
    """Lets the model keep its logits for metrics of probabilities unless the config decides; others stay as they are."""
    model = bare_model(runner.model)
    config = runner.cfg.model.get('module', runner.cfg.model)
    if hasattr(model, 'keep_logits') and 'keep_logits' not in config:
        model.keep_logits = True


def check_display() -> None:
    """Looks for windows before frames are drawn that nobody would see.

    Raises:
        OccError: If matplotlib, which opens the windows, fell back to a back end without, or was told to.
    """
    from matplotlib import pyplot
    from matplotlib.backends import BackendFilter, backend_registry

    backend = pyplot.get_backend()
    if backend.lower() in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE):
        raise OccError(
            f'--show opens windows, but matplotlib has none (back end {backend!r}): it needs a display (DISPLAY, '
            'WAYLAND_DISPLAY) and a toolkit such as tkinter. Write the pictures to files with --show-dir DIR'
        )


def test(args: argparse.Namespace) -> None:
    """Tests as the arguments say."""
    check_checkpoint_file(args.checkpoint)
    if args.show:
        check_display()
    if args.save_logits and not args.out:
        raise OccError('--save-logits needs --out, the folder of the predictions')
    if args.show_video and not args.show_dir:
        raise OccError('--show-video needs --show-dir, the folder of the videos')
    if args.metrics_json and Path(args.metrics_json).is_dir():
        raise OccError(f'--metrics-json {args.metrics_json!r} is a folder; name the file to write')
    folder = args.metrics_json and Path(args.metrics_json).parent
    outputs = [(args.out, '--out'), (args.show_dir, '--show-dir'), (folder, '--metrics-json')]
    outputs.append((args.records and Path(args.records).parent, '--records'))
    for directory, option in outputs:
        if directory:
            check_writable(directory, option)
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.no_labels:
        drop_labels(cfg, args)
    add_output_hooks(cfg, args)
    add_metrics(cfg, args)
    if args.tta:
        cfg.model = {'type': 'FlipTTA', **cfg.get('tta_model', {}), 'module': cfg.model}
    prepare_launch(cfg, args.launcher)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if args.image_metrics or args.ray_profile or args.save_logits:
        hand_logits_to_metrics(runner)
    records = None
    if args.records:
        if runner.world_size > 1:
            raise OccError('--records writes the frames of one process; test without a launcher')
        records = FrameRecords(runner.test_loop.evaluator.metrics)
    metrics = runner.test()
    if records:
        dataset = runner.test_dataloader.dataset
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        records.write(args.records, *([str(info.get(key, '')) for info in infos] for key in ('token', 'scene_name')))
    if args.metrics_json and runner.rank == 0:
        write_metrics(args.metrics_json, metrics, source=dict(config=args.config, checkpoint=args.checkpoint))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(test, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
