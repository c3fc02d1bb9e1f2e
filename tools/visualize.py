"""Draws occupancy: predictions of a model, saved predictions, labels, or label files without any data set.

    python tools/visualize.py CONFIG CHECKPOINT    --show-dir DIR     a model on its test set
    python tools/visualize.py CONFIG --pred FOLDER --show-dir DIR     predictions that tools/test.py --out saved
    python tools/visualize.py CONFIG --labels      --show-dir DIR     the labels of the test set
    python tools/visualize.py --npz FILE ... [--gt FILE ...] --show-dir DIR
                              Occ3D labels.npz, predictions, SurroundOcc .npy, SSCBench .label / .npy

Writes pages per frame: cameras (images with voxels laid over), scene (3D and bird's-eye views, errors), rendered (class and
depth maps of every camera). --video gif|mp4 adds a video per scene (prediction, ground truth and errors side by side), --html a
page per scene that opens in a browser without a server. docs/visualization.md shows them.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet3d.registry import DATASETS, MODELS, VISUALIZERS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.device import get_device  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.runner.checkpoint import CheckpointLoader  # noqa: E402
from torch import nn  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.datasets.label_volumes import FORMATS, read_label_volume  # noqa: E402
from projects.occ.engine.checkpoint import check_checkpoint_file, load_weights_strictly  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.file_names import name_to_path, plain_name, shown_text  # noqa: E402
from projects.occ.structures import OccBatch, OccDataSample, OccPrediction, VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS, free_space_elsewhere, get_benchmark  # noqa: E402
from projects.occ.visualization import (  # noqa: E402
    CameraPath,
    OccVisualizer,
    RenderedMaps,
    SceneHtml,
    SceneVideos,
    VoxelPainter,
    cast_maps,
)
from projects.occ.visualization.camera_path import OVERVIEW  # noqa: E402
from projects.occ.visualization.figure_layout import write_png  # noqa: E402
from projects.occ.visualization.figures import depth_scale, stack_views  # noqa: E402
from projects.occ.visualization.occ_visualizer import original_images  # noqa: E402
from projects.occ.visualization.scene_html import sample_frame  # noqa: E402
from projects.occ.visualization.video_files import VIDEO_KINDS  # noqa: E402

MIN_DEPTH = 0.1  # metres
STEPS_OF_ONE_FRAME = 48  # pictures of a video that goes around a single frame
FRAMES_PER_PAGE = 60  # of an HTML file; a longer scene goes on in another


@dataclass(frozen=True)
class DrawnFrame:
    """One frame to draw: its name, its scene, and its maps if something but rays rendered them."""

    name: str
    scene: str
    sample: OccDataSample
    maps: RenderedMaps | None = None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument('--show-dir', required=True, metavar='DIR', help='folder to write to')
    source = parser.add_argument_group('what to draw instead of a checkpoint')
    source.add_argument('--pred', metavar='FOLDER', help='predictions <token>.npz as tools/test.py --out writes them')
    source.add_argument('--labels', action='store_true', help='the labels alone')
    source.add_argument('--npz', nargs='+', metavar='FILE', help=f'label files: {FORMATS}')
    source.add_argument('--gt', nargs='+', metavar='FILE', help='with --npz: the true label of every file, to draw errors too')
    source.add_argument(
        '--preset', choices=tuple(BENCHMARKS), help='grid of the --npz files (default: of CONFIG, or by their shape)'
    )
    parser.add_argument('--indices', type=int, nargs='+', metavar='I', help='positions in the test set (default: all)')
    pages = parser.add_argument_group('pages')
    pages.add_argument('--no-pages', action='store_true', help='only the video or the HTML file')
    pages.add_argument(
        '--maps',
        choices=['auto', 'gaussians', 'rays', 'none'],
        default='auto',
        help="how maps are rendered: by the config's aggregator, by casting rays at the voxels, or not; auto takes the "
        'aggregator if the config has one and a checkpoint is given (default: auto)',
    )
    pages.add_argument('--single', action='store_true', help='also write every picture alone, without titles')
    video = parser.add_argument_group('video')
    video.add_argument('--video', choices=VIDEO_KINDS, help='write DIR/<scene>.gif or .mp4')
    video.add_argument(
        '--view', default=OVERVIEW, metavar='NAME', help='overview, or a camera such as CAM_FRONT (default: overview)'
    )
    video.add_argument(
        '--turn',
        type=float,
        metavar='DEG',
        help='degrees that the overview turns per picture (default: 0, or once around one frame)',
    )
    video.add_argument(
        '--steps', type=int, metavar='N', help=f'pictures per frame (default: 1, or {STEPS_OF_ONE_FRAME} for one frame)'
    )
    video.add_argument(
        '--fps', type=float, help='pictures per second (default: 2 per step, at most 12; nuScenes key frames come at 2 Hz)'
    )
    video.add_argument(
        '--video-width', type=int, metavar='PX', help='width of a view (default: 480 for each of three, 960 for one)'
    )
    page = parser.add_argument_group('HTML')
    page.add_argument('--html', action='store_true', help='write DIR/<scene>.html')
    page.add_argument(
        '--html-images', type=int, default=320, metavar='PX', help='width of its camera images, 0 for none (default: 320)'
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def visualize(args: argparse.Namespace) -> None:
    """Draws what the arguments ask for.

    Raises:
        OccError: If the arguments do not say what to draw, or what was asked for does not exist.
    """
    check_writable(args.show_dir, '--show-dir')
    if args.no_pages and not (args.video or args.html):
        raise OccError('--no-pages leaves nothing to write without --video or --html')
    if args.npz:
        visualizer, frames = file_frames(args)
    elif args.config and sum(map(bool, (args.checkpoint, args.pred, args.labels))) == 1:
        visualizer, frames = dataset_frames(args)
    else:
        raise OccError('give CONFIG and CHECKPOINT (or --pred FOLDER, or --labels), or label files with --npz; see --help')
    draw_frames(args, visualizer, frames)


def draw_frames(args: argparse.Namespace, visualizer: OccVisualizer, frames: Sequence[DrawnFrame]) -> None:
    """Writes pages, videos and HTML files of frames, which are made one by one."""
    out = Path(args.show_dir)
    steps = args.steps or (STEPS_OF_ONE_FRAME if len(frames) == 1 and args.view == OVERVIEW else 1)
    turn = (360 / steps if len(frames) == 1 else 0.0) if args.turn is None else args.turn
    # prediction and label give three views, one of them alone gives one
    width = 480 if args.checkpoint or args.pred or args.gt else 960
    path = CameraPath(args.view, turn, args.video_width or width)
    videos = SceneVideos(out, args.video, args.fps or min(2 * steps, 12)) if args.video else None
    pages = HtmlPages(out, visualizer.painter, args.html_images) if args.html else None
    for position, frame in enumerate(tqdm(frames, desc='drawing', unit='frame')):
        if not args.no_pages:
            write_pages(args, visualizer, frame)
        for step in range(steps if videos else 0):
            number = position * steps + step
            videos.add(frame.scene, number, visualizer.comparison(frame.sample, path, number, shown_text(frame.name)))
        if pages:
            pages.add(frame)
    for file in [*(videos.finish() if videos else ()), *(pages.finish() if pages else ())]:
        print(f'wrote {file}')


def write_pages(args: argparse.Namespace, visualizer: OccVisualizer, frame: DrawnFrame) -> None:
    """Writes the pages of one frame: in a folder of its own if it belongs to a data set, else beside each other."""
    out, sample, maps = Path(args.show_dir), frame.sample, frame.maps
    if maps is None and args.maps != 'none' and 'ref2cam' in sample:
        maps = cast_maps(sample, visualizer.painter)
    prefix = f'{plain_name(frame.name)}_' if args.npz else f'{frame.name}/'
    title = shown_text(frame.name) if args.npz else f'{sample.get("scene_name", "")} {frame.name}'.strip()
    for page, image in visualizer.figures(sample, rendered=maps, title=title).items():
        write_png(out / f'{prefix}{page}.png', image)
    if args.single:
        prefix += '' if args.npz else 'single/'
        for name, image in single_pictures(visualizer.painter, sample, maps).items():
            write_png(out / f'{prefix}{plain_name(name)}.png', image)


class HtmlPages:
    """One HTML file per scene, written when the next scene begins, after ``FRAMES_PER_PAGE`` frames, and at the end."""

    def __init__(self, folder: Path, painter: VoxelPainter, image_width: int) -> None:
        self.folder, self.painter, self.image_width = folder, painter, image_width
        self.files: list[Path] = []
        self._page: SceneHtml | None = None
        self._scene = ''

    def add(self, frame: DrawnFrame) -> None:
        """Adds a frame to the page of its scene."""
        if self._page is not None and (self._scene != frame.scene or len(self._page) >= FRAMES_PER_PAGE):
            self.finish()
        if self._page is None:
            self._page, self._scene = SceneHtml(self.painter, frame.scene, self.image_width), frame.scene
        originals = original_images(frame.sample) if self.image_width else None
        self._page.add(sample_frame(frame.sample, frame.name, None if originals is None else originals.images))

    def finish(self) -> list[Path]:
        """Writes the page that is open. Returns all files so far."""
        if self._page is not None:
            name, part = plain_name(self._scene), 1
            path = self.folder / f'{name}.html'
            while path in self.files:
                part += 1
                path = self.folder / f'{name}_{part}.html'
            self.files.append(self._page.write(path))
            self._page = None
        return self.files


class LazyFrames(Sequence):
    """Frames that are made when they are asked for."""

    def __init__(self, sources: Sequence, make) -> None:
        self._sources, self._make = sources, make

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: int) -> DrawnFrame:
        return self._make(self._sources[index])

    def __iter__(self) -> Iterator[DrawnFrame]:
        return map(self._make, self._sources)


def file_frames(args: argparse.Namespace) -> tuple[OccVisualizer, Sequence[DrawnFrame]]:
    """Label files without model and data set; together they are one scene.

    Raises:
        OccError: If a file cannot be read or does not fit the grid of the first one.
    """
    if args.gt and len(args.gt) != len(args.npz):
        raise OccError(f'--gt needs one label for each --npz file, got {len(args.gt)} for {len(args.npz)}')
    if args.preset:
        grids = {args.preset: get_benchmark(args.preset).grid}
    elif args.config:
        config = Config.fromfile(args.config, import_custom_modules=False)
        if 'grid' not in config:
            raise OccError(f'config {args.config!r} has no grid')
        grids = {args.config: VoxelGrid.build(config.grid)}
    else:
        grids = {name: preset.grid for name, preset in BENCHMARKS.items()}
    first_path = args.gt[0] if args.gt else args.npz[0]
    first = read_volume(first_path, grids, others=not (args.preset or args.config))
    if args.gt and not first.tells_grid and not (args.preset or args.config):
        # labels of benchmarks do not tell their grid, our predictions do
        first = read_volume(args.npz[0], {name: grid for name, grid in grids.items() if grid.shape == first.grid.shape}, True)
    print(f'grid: {first.grid_name}')
    elsewhere = (
        ''
        if first.tells_grid
        else free_space_elsewhere(
            np.bincount(first.labels[first.labels < first.grid.num_classes], minlength=first.grid.num_classes), first.grid
        )
    )
    if elsewhere:
        print(f'warning: {first_path}: {elsewhere}; name the grid with --preset')
    grids = {first.grid_name: first.grid}
    names = different_names(args.npz)
    scene = names[0] if len(names) == 1 else Path(args.npz[0]).resolve().parent.name

    def make(source: tuple[str, str, str | None]) -> DrawnFrame:
        name, path, truth = source
        sample = OccDataSample()
        volume = read_volume(path, grids)
        if truth:
            label = read_volume(truth, grids)
            sample.pred_occ, sample.gt_occ = torch.from_numpy(volume.labels), torch.from_numpy(label.labels)
        else:
            label = volume
            setattr(sample, 'pred_occ' if volume.is_prediction else 'gt_occ', torch.from_numpy(volume.labels))
        if label.mask_camera is not None:
            sample.mask_camera = torch.from_numpy(label.mask_camera)
        return DrawnFrame(name, scene, sample)

    return OccVisualizer(grid=first.grid), LazyFrames(list(zip(names, args.npz, args.gt or [None] * len(names))), make)


def different_names(paths: Sequence[str]) -> list[str]:
    """Names of files: the stem, of ``labels.npz`` the folder, with as many folders as tell them apart, or else a number."""
    parts = [Path(path).resolve().with_suffix('').parts[1:] for path in paths]
    parts = [part[:-1] if part[-1] == 'labels' and len(part) > 1 else part for part in parts]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ['_'.join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f'{part[-1]}_{number}' for number, part in enumerate(parts, start=1)]


def read_volume(path: str, grids: dict[str, VoxelGrid], others: bool = False):
    """Reads a label file; see :func:`read_label_volume`.

    Raises:
        OccError: If it cannot be read or fits no grid.
    """
    try:
        return read_label_volume(path, grids, others)
    except (OSError, ValueError) as error:
        raise OccError(str(error)) from error


def dataset_frames(args: argparse.Namespace) -> tuple[OccVisualizer, Sequence[DrawnFrame]]:
    """Frames of the test set of a config with predictions of a model or of files, or with labels alone.

    Raises:
        OccError: If the config has no such frame, or the checkpoint does not fit.
    """
    if args.checkpoint:
        check_checkpoint_file(args.checkpoint)
    if args.work_dir is None:
        args.work_dir = args.show_dir
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    indices = range(len(dataset)) if args.indices is None else args.indices
    outside = [i for i in indices if not 0 <= i < len(dataset)]
    if outside:
        raise OccError(f'--indices {outside}: the test set has {len(dataset)} frames, 0 to {len(dataset) - 1}')
    model = load_model(cfg, args.checkpoint) if args.checkpoint else None
    if args.html and hasattr(model, 'keep_logits'):
        model.keep_logits = True  # opacities for the picture of a ray
    if args.maps == 'gaussians' and not hasattr(getattr(model, 'aggregator', None), 'render_batch'):
        why = (
            'the model of this config has no aggregator'
            if model
            else 'Gaussians are made from logits, so a checkpoint is needed'
        )
        raise OccError(f'--maps gaussians: {why}; use --maps rays')
    settings = {'type': 'OccVisualizer', **cfg.get('visualizer', {}), 'vis_backends': None}
    # not built by the registry, which would hand out a visualiser that the process already has
    visualizer = VISUALIZERS.get(settings.pop('type'))(**settings)
    visualizer.dataset_meta = dataset.metainfo

    def make(index: int) -> DrawnFrame:
        item, maps = dataset[index], None
        if model is not None:
            prediction, batch, (sample,) = model.predict_raw(pseudo_collate([item]))
            if args.maps in ('auto', 'gaussians') and hasattr(model.aggregator, 'render_batch') and not args.no_pages:
                maps = splat_maps(model, prediction, batch)
        else:
            sample = item['data_samples']
        token = str(sample.get('token', f'frame_{index}'))
        if args.pred:
            path = Path(args.pred) / f'{name_to_path(token)}.npz'
            sample.pred_occ = torch.from_numpy(read_volume(str(path), {'CONFIG': visualizer.painter.grid}).labels)
        return DrawnFrame(str(name_to_path(token)), str(sample.get('scene_name', '') or 'scene'), sample, maps)

    return visualizer, LazyFrames(list(indices), make)


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """Builds the model of a config with the weights of a checkpoint, in evaluation mode on the default device.

    Raises:
        CheckpointError: If the weights do not fit.
    """
    model = MODELS.build(cfg.model)
    load_weights_strictly(model, CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    return model.to(get_device()).eval()


def splat_maps(model: nn.Module, prediction: OccPrediction, batch: OccBatch) -> RenderedMaps:
    """Class and depth maps of label and prediction in the original cameras and from above, by the aggregator of the model."""
    maps = {'pred': ([], []), 'gt': ([], [])}
    bev = {}
    # one camera at a time: images of all classes of six full-size cameras take gigabytes
    for camera in range(batch.cameras.at(0).num_cameras):
        scenes = zip(maps, model.aggregator.render_batch(prediction, batch, indices=[camera]), strict=True)
        for kind, scene in scenes:
            if scene is not None:
                maps[kind][0].append(scene.cam_sem[0, 0].argmax(-1).cpu().numpy())
                # accumulated depth fades at silhouettes, which looks like near objects: show the mean depth of what is there
                covered = scene.cam_alpha[0, 0] > 0.5
                depth = torch.where(covered, scene.cam_depth[0, 0] / scene.cam_alpha[0, 0], 0)
                maps[kind][1].append(depth.cpu().numpy())
                bev[kind] = scene.bev_sem[0].argmax(-1).cpu().numpy()
    stacked = {kind: [stack_views(part) if part else None for part in parts] for kind, parts in maps.items()}
    return RenderedMaps(
        gt_classes=stacked['gt'][0],
        pred_classes=stacked['pred'][0],
        gt_depth=stacked['gt'][1],
        pred_depth=stacked['pred'][1],
        gt_bev=bev.get('gt'),
        pred_bev=bev['pred'],
        how='Gaussian splatting, depth divided by coverage',
    )


def single_pictures(painter: VoxelPainter, sample: OccDataSample, maps: RenderedMaps | None) -> dict[str, np.ndarray]:
    """Every picture of a frame alone: name -> (H, W, 3) uint8, in full resolution."""
    pictures = {}
    for kind in ('gt', 'pred'):
        labels = sample.get(f'{kind}_occ')
        if labels is not None:
            labels = labels.cpu().numpy()
            pictures[f'{kind}_3d'] = painter.overview(labels, 1600, 900)
            pictures[f'{kind}_bev'] = painter.bird_eye(labels)
    originals = original_images(sample)
    names = list(sample.get('cam_names', ()))
    if originals is not None:
        pictures.update({f'{name}_image': image for name, image in zip(names, originals.images, strict=True)})
    if maps is None:
        return pictures
    bar = depth_scale(painter)
    for kind, classes, depth in (('gt', maps.gt_classes, maps.gt_depth), ('pred', maps.pred_classes, maps.pred_depth)):
        for i, name in enumerate(names):
            if classes is not None:
                pictures[f'{name}_{kind}_classes'] = painter.colorize(classes[i])
            if depth is not None:
                pictures[f'{name}_{kind}_depth'] = bar.paint(depth[i], depth[i] > MIN_DEPTH)
    return pictures


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(visualize, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
