"""Improves saved predictions by rendering them against the LiDAR of their frames; no network is run.

    python tools/test.py CONFIG CHECKPOINT --out DIR --save-logits
    python tools/refine.py CONFIG --pred DIR --out REFINED --seconds 3

CONFIG tells the test set; predictions are npz files with ``logits`` (C, X, Y, Z), or with class ids of any code base, which
are taken as ``--certainty`` sure. Depths of LiDAR points are compared with rendered ones (``march``), or voxels are looked up
along the rays (``queries``). Classes of points are not used unless ``--classes`` says that there are some. Writes
REFINED/<token>.npz, scores both (mIoU, IoU, RayIoU; differences with intervals over scenes), and --film a video of one frame
on its way.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet3d.registry import DATASETS, METRICS, MODELS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.runner import set_random_seed  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.datasets.label_volumes import read_prediction  # noqa: E402
from projects.occ.datasets.lidar_points import point_dims_of  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.evaluators import find_evaluator  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.engine.metrics_file import write_metrics  # noqa: E402
from projects.occ.evaluation import RayIoUMetric  # noqa: E402
from projects.occ.evaluation.functional import (  # noqa: E402
    class_counts,
    mean_iou,
    occupied_counts,
    paired_bootstrap,
    ratio_of_sums,
    ray_iou_of_counts,
)
from projects.occ.file_arrays import load_arrays  # noqa: E402
from projects.occ.file_names import name_to_path  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.visualization import VoxelPainter  # noqa: E402
from projects.occ.visualization.video_files import write_video  # noqa: E402
from projects.rendering import (  # noqa: E402
    DensityField,
    MarchRenderer,
    MeasuredRays,
    RayQueries,
    RayQueryTarget,
    RayTarget,
    RenderSupervision,
)
from projects.rendering.refinement import refine_logits  # noqa: E402

PICTURE = (420, 300)  # of the film, width and height of each of three, pixels
METHODS = ('queries', 'march')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file; its test set has labels and LiDAR')
    add_common_arguments(parser)
    parser.add_argument('--pred', required=True, metavar='DIR', help='predictions <token>.npz')
    parser.add_argument('--out', required=True, metavar='DIR', help='where refined ones go')
    parser.add_argument('--method', choices=METHODS, default='queries', help='how rays are used (default: queries)')
    parser.add_argument('--seconds', type=float, default=3.0, help='per frame (default: 3)')
    parser.add_argument('--steps', type=int, default=60, help='at most, per frame (default: 60)')
    parser.add_argument('--rate', type=float, default=0.3, help='step length in logits (default: 0.3)')
    parser.add_argument('--anchor', type=float, default=10.0, help='how firmly the prediction is held (default: 10)')
    parser.add_argument('--rays', type=int, default=4096, help='LiDAR rays per frame (default: 4096)')
    parser.add_argument('--frames', type=int, nargs='+', default=[0], help='offsets of the frames with LiDAR (default: 0)')
    parser.add_argument('--classes', action='store_true', help='LiDAR points have classes: use them too')
    parser.add_argument('--certainty', type=float, default=0.9, help='probability of saved class ids (default: 0.9)')
    parser.add_argument('--metrics-json', metavar='FILE', help='write scores before and after')
    parser.add_argument('--film', metavar='FILE', help='write a video (.gif, .mp4) of a frame on its way')
    parser.add_argument('--film-frame', type=int, default=0, metavar='I', help='position of that frame (default: 0)')
    args = parser.parse_args(argv)
    if not 0.5 < args.certainty < 1:
        parser.error(f'--certainty must lie between 0.5 and 1, got {args.certainty}')
    return args


def build_supervision(grid: VoxelGrid, method: str, classes: bool) -> RenderSupervision:
    """What logits are refined by."""
    field, views = DensityField(grid, source='logits', features='logits'), MeasuredRays()
    terms: dict[str, dict[str, Any]] = {}
    if method == 'march':
        renderer = MarchRenderer(grid, form='nerf', step=0.5, distortion='width')
        target = RayTarget(grid, depth='z', labels=classes)
        terms['depth'] = dict(function='silog', view='ray', quantity='depth', options=dict(balance=0.0))
        # a mean depth alone would be met by fog as well
        terms['entropy'] = dict(function='last_entropy', view='ray', weight=0.1)
        terms['distortion'] = dict(function='distortion', view='ray', weight=1.0)
    else:
        renderer, target = RayQueries(grid), RayQueryTarget(grid, labels=classes)
        terms['points'] = dict(function='point_cross_entropy', view='ray', quantity='opacity')
    if classes:
        terms['classes'] = dict(function='cross_entropy', view='ray', quantity='features')
    return RenderSupervision(field, views, renderer, target, terms)


def test_set(cfg: Config, args: argparse.Namespace):
    """The test set with LiDAR rays.

    Raises:
        OccError: If its pipeline does not load images and end in PackOccInputs.
    """
    config = dict(cfg.test_dataloader.dataset)
    steps = [dict(step) for step in config['pipeline'] if step['type'] != 'LoadLidarRays']
    # where points and classes come from is a matter of the data, how many rays and of which frames one of this tool
    own = next((dict(step) for step in config['pipeline'] if step['type'] == 'LoadLidarRays'), {})
    sources = {key: own[key] for key in ('point_dims', 'point_classes', 'ray_files', 'class_maps') if key in own}
    places = [i for i, step in enumerate(steps) if step['type'] == 'LoadMultiViewImages']
    if not places or steps[-1]['type'] != 'PackOccInputs':
        raise OccError('tools/refine.py needs a test pipeline with LoadMultiViewImages that ends in PackOccInputs')
    sources = {'point_dims': point_dims_of(config), **sources}
    if not args.classes:
        sources = {**sources, 'point_classes': 'none', 'class_maps': None}
    rays = dict(type='LoadLidarRays', num_rays=args.rays, balance='none', neighbour_weight=1.0, **sources)
    last = max(i for i, step in enumerate(steps) if step['type'] in ('LoadMultiViewImages', 'LoadOccLabels'))
    config['pipeline'] = [*steps[: last + 1], rays, *steps[last + 1 :]]
    config['lidar_frames'] = tuple(args.frames)
    return DATASETS.build(config)


def read_logits(path: Path, grid: VoxelGrid, certainty: float) -> torch.Tensor:
    """(1, C, X, Y, Z) float32 of a saved prediction.

    Raises:
        OccError: If the file does not exist or does not fit the grid.
    """
    if not path.is_file():
        raise OccError(f'there is no prediction {str(path)!r}; write them with tools/test.py --out DIR --save-logits')
    try:
        arrays = load_arrays(str(path), 'prediction', 'write it again')
        if 'logits' in arrays:
            logits = torch.from_numpy(np.asarray(arrays['logits'], dtype=np.float32))
            if tuple(logits.shape) != (grid.num_classes, *grid.shape):
                expected = (grid.num_classes, *grid.shape)
                raise OccError(f'{str(path)!r}: logits must have the shape {expected}, got {tuple(logits.shape)}')
            return logits[None]
        labels = torch.from_numpy(read_prediction(path, grid)).long()
    except ValueError as error:
        raise OccError(str(error)) from error
    shares = torch.full((grid.num_classes, *grid.shape), (1 - certainty) / (grid.num_classes - 1))
    return shares.scatter_(0, labels[None], certainty).log()[None]


def refine(args: argparse.Namespace) -> None:
    """Refines as the arguments say.

    Raises:
        OccError: If predictions, test set and arguments do not fit together.
    """
    check_writable(args.out, '--out')
    if args.work_dir is None:
        args.work_dir = args.out
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    dataset = test_set(cfg, args)
    grid = VoxelGrid.build(dataset.metainfo['grid'])
    preprocessor = MODELS.build(dict(cfg.model.data_preprocessor))
    if hasattr(preprocessor, 'expect'):
        preprocessor.expect(grid, renders=True)
    supervision = build_supervision(grid, args.method, args.classes)
    scores = {name: Scores(grid, cfg) for name in ('before', 'after')}
    film: list[np.ndarray] = []
    seconds, scenes = [], []
    for index in tqdm(range(len(dataset)), desc='refining', unit='frame'):
        set_random_seed(index)  # of the draws of rays and points
        data = preprocessor(pseudo_collate([dataset[index]]), False)
        sample, batch = data['data_samples'][0], data['inputs']
        relative = name_to_path(sample.token)
        logits = read_logits(Path(args.pred) / f'{relative}.npz', grid, args.certainty)
        watch = Film(grid, sample, film) if args.film and index == args.film_frame else None
        options = dict(steps=args.steps, rate=args.rate, anchor=args.anchor, seconds=args.seconds, watch=watch)
        found = refine_logits(logits, batch, supervision, **options)
        seconds.append(found.seconds)
        scenes.append(str(sample.get('scene_name', '')))
        for name, values in (('before', logits), ('after', found.logits)):
            scores[name].add(sample, values.argmax(1)[0].to(torch.uint8))
        arrays = dict(pred=found.logits.argmax(1)[0].numpy().astype(np.uint8), **grid.to_arrays())
        write_atomically(Path(args.out) / f'{relative}.npz', lambda file, a=arrays: np.savez_compressed(file, **a))
    report = compare(scores, scenes, grid)
    print(f'{len(dataset)} frames, {np.mean(seconds):.1f} s each ({args.method}, {args.rays} rays of frames {args.frames})')
    for name, row in report.items():
        print(
            f'{name:9s} {100 * row["before"]:6.2f} -> {100 * row["after"]:6.2f}   difference {100 * row["difference"]:+.2f} '
            f'[{100 * row["low"]:+.2f}, {100 * row["high"]:+.2f}] over scenes: {row["verdict"]}'
        )
    if args.metrics_json:
        source = {key: getattr(args, key) for key in ('config', 'pred', 'method', 'rays', 'frames', 'steps', 'rate', 'anchor')}
        write_metrics(args.metrics_json, dict(report, seconds_per_frame=float(np.mean(seconds))), source=source)
    if args.film:
        print(f'wrote {write_video(args.film, film, 6)}')


class Film:
    """Draws prediction, errors and label before every step."""

    def __init__(self, grid: VoxelGrid, sample: Any, pictures: list[np.ndarray]) -> None:
        self.painter, self.pictures = VoxelPainter(grid), pictures
        self.label = sample.gt_occ.cpu().numpy()
        mask = sample.get('mask_camera')
        self.mask = None if mask is None else mask.cpu().numpy() != 0

    def __call__(self, step: int, logits: torch.Tensor) -> None:
        labels = logits.argmax(1)[0].numpy().astype(np.uint8)
        parts = [self.painter.overview(labels, *PICTURE), self.painter.error_overview(labels, self.label, self.mask, *PICTURE)]
        self.pictures.append(np.concatenate([*parts, self.painter.overview(self.label, *PICTURE)], 1))


class Scores:
    """Counts of every frame, by the OccupancyMetric of the config's test, and of query rays where there are poses of drives.

    Raises:
        OccError: If the config has no OccupancyMetric.
    """

    def __init__(self, grid: VoxelGrid, cfg: Config) -> None:
        block = find_evaluator(cfg.test_evaluator, 'OccupancyMetric', 'which says which voxels count; add one')
        self.voxels = METRICS.build({**block, 'grid': grid})
        try:
            self.rays = RayIoUMetric(grid, cfg.test_dataloader.dataset)
        except ValueError as error:
            print(f'no RayIoU: {error}', file=sys.stderr)
            self.rays = None

    def add(self, sample: Any, labels: torch.Tensor) -> None:
        """Counts a frame."""
        item = {**{key: sample.get(key) for key in sample.all_keys()}, 'pred_occ': labels}
        for metric in filter(None, (self.voxels, self.rays)):
            metric.process({}, [item])


def compare(scores: Mapping[str, Scores], scenes: Sequence[str], grid: VoxelGrid) -> dict[str, dict[str, Any]]:
    """Scores before and after, and their difference with an interval over scenes (frames, if there is one scene)."""
    names = list(dict.fromkeys(scenes))
    groups = (
        [[i for i, s in enumerate(scenes) if s == n] for n in names] if len(names) > 1 else [[i] for i in range(len(scenes))]
    )

    def pooled(results: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack([np.asarray(result) for result in results])
        return np.stack([stacked[rows].sum(0) for rows in groups])[None]

    free, columns = grid.free_index, {}
    hist = {name: pooled(score.voxels.results) for name, score in scores.items()}
    columns['mIoU'] = ({k: class_counts(v) for k, v in hist.items()}, lambda counts: mean_iou(counts, free))
    columns['IoU'] = ({k: occupied_counts(v, free) for k, v in hist.items()}, ratio_of_sums)
    if scores['before'].rays is not None:
        rays = {name: pooled(score.rays.results) for name, score in scores.items()}
        columns['RayIoU'] = (rays, lambda counts: ray_iou_of_counts(counts, free))
    report = {}
    for name, (counts, metric) in columns.items():
        found = paired_bootstrap(counts['after'], counts['before'], metric)
        report[name] = dict(
            before=found.b,
            after=found.a,
            difference=found.difference,
            low=found.low,
            high=found.high,
            verdict={'open': 'open', 'higher': 'better', 'lower': 'worse'}[found.verdict],
        )
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(refine, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
