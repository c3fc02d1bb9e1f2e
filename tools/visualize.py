"""Draws occupancy: predictions of a model on its test set, or label files.

    python tools/visualize.py CONFIG CHECKPOINT --show-dir DIR [--indices 0 5]
    python tools/visualize.py --npz labels.npz --preset occ3d --show-dir DIR [--gt labels.npz]

The first form writes DIR/<token>/cameras.png (images with voxels laid over), scene.png (3D and bird's-eye views, errors) and
rendered.png (class and depth maps of every camera). The second form draws files like those of Occ3D or of tools/test.py --out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

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

from projects.occ.engine.checkpoint import check_checkpoint_file, compare_keys  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.errors import CheckpointError, OccError  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.evaluation.presets import PRESETS, get_preset  # noqa: E402
from projects.occ.structures import OccDataSample, OccPrediction, VoxelGrid  # noqa: E402
from projects.occ.visualization import OccVisualizer, RenderedMaps, VoxelPainter  # noqa: E402
from projects.occ.visualization.figure_layout import write_png  # noqa: E402
from projects.occ.visualization.figures import depth_scale  # noqa: E402
from projects.occ.visualization.occ_visualizer import original_images  # noqa: E402
from projects.occ.visualization.view_cameras import project_matrix  # noqa: E402

NPZ_KEYS = ('semantics', 'pred', 'arr_0')
MIN_DEPTH = 0.1  # metres


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument('--show-dir', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--indices', type=int, nargs='+', metavar='I', help='positions in the test set (default: all)')
    parser.add_argument(
        '--maps',
        choices=['auto', 'gaussians', 'rays', 'none'],
        default='auto',
        help="how maps are rendered: by the config's aggregator, by casting rays at the voxels, or not; auto takes the "
        'aggregator if the config has one (default: auto)',
    )
    parser.add_argument('--single', action='store_true', help='also write every picture alone, without titles')
    parser.add_argument('--npz', nargs='+', metavar='FILE', help=f'draw label files; key {" or ".join(NPZ_KEYS)}')
    parser.add_argument('--gt', metavar='FILE', help='with one --npz: the true label, to draw errors too')
    parser.add_argument('--preset', choices=tuple(PRESETS), help='grid of the --npz files (default: grid of CONFIG, or occ3d)')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def visualize(args: argparse.Namespace) -> None:
    """Draws what the arguments ask for."""
    check_writable(args.show_dir, '--show-dir')
    if args.npz:
        draw_files(args)
    elif args.config and args.checkpoint:
        draw_predictions(args)
    else:
        raise OccError('give CONFIG and CHECKPOINT, or label files with --npz; see --help')


def draw_files(args: argparse.Namespace) -> None:
    """The second form: label files without model and data set.

    Raises:
        OccError: If a file cannot be read or does not fit the grid.
    """
    if args.gt and len(args.npz) > 1:
        raise OccError(f'--gt goes with one --npz file, got {len(args.npz)}')
    if args.config and not args.preset:
        grid = Config.fromfile(args.config).grid
    else:
        grid = get_preset(args.preset or 'occ3d').grid
    visualizer = OccVisualizer(grid=grid)
    for path in tqdm(args.npz, desc='drawing', unit='file'):
        sample = OccDataSample()
        fields = [('pred_occ', path), ('gt_occ', args.gt)] if args.gt else [(None, path)]
        for field, file in fields:
            key, arrays = read_labels(file, visualizer.painter.grid)
            setattr(sample, field or ('gt_occ' if key == 'semantics' else 'pred_occ'), torch.from_numpy(arrays[key]))
            if 'mask_camera' in arrays:
                sample.mask_camera = torch.from_numpy(arrays['mask_camera'] != 0)
        name = Path(path).stem if Path(path).stem != 'labels' else Path(path).resolve().parent.name
        visualizer.add_datasample(name, None, sample, out_file=Path(args.show_dir) / f'{name}.png')
        if args.single:
            for kind, image in single_pictures(visualizer.painter, sample, None).items():
                write_png(Path(args.show_dir) / f'{name}_{kind}.png', image)


def read_labels(path: str, grid: VoxelGrid) -> tuple[str, dict[str, np.ndarray]]:
    """Reads an npz file with class ids (X, Y, Z).

    Returns:
        The key of the class ids, and all arrays of the file.

    Raises:
        OccError: If the file cannot be read, has none of the known keys, or does not fit the grid.
    """
    try:
        with np.load(path) as data:
            arrays = dict(data)
    except (OSError, ValueError, TypeError) as error:
        raise OccError(f'cannot read {path!r} as an npz file: {error}') from error
    key = next((key for key in NPZ_KEYS if key in arrays), None)
    if key is None:
        raise OccError(f'label file {path!r} has the keys {list(arrays)}, expected one of {NPZ_KEYS}')
    try:
        grid.check_labels(arrays[key], origin=path)
    except ValueError as error:
        raise OccError(f'{error}; choose the grid with --preset or by naming a CONFIG') from error
    return key, {**arrays, key: arrays[key].astype(np.uint8)}


def draw_predictions(args: argparse.Namespace) -> None:
    """The first form: a model on the test set of its config.

    Raises:
        OccError: If the config has no such frame, or the checkpoint does not fit.
    """
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
    model = load_model(cfg, args.checkpoint)
    if args.maps == 'gaussians' and model.aggregator is None:
        raise OccError('--maps gaussians: the model of this config has no aggregator; use --maps rays')
    settings = {'type': 'OccVisualizer', **cfg.get('visualizer', {}), 'vis_backends': None}
    # not built by the registry, which would hand out a visualiser that the process already has
    visualizer = VISUALIZERS.get(settings.pop('type'))(**settings)
    visualizer.dataset_meta = dataset.metainfo
    for index in tqdm(indices, desc='drawing', unit='frame'):
        sample, prediction = predict(model, dataset[index])
        maps = render_maps(model, sample, prediction, visualizer.painter, args.maps)
        folder = Path(args.show_dir) / PurePosixPath(str(sample.get('token', f'frame_{index}'))).name
        pages = visualizer.figures(sample, rendered=maps, title=f'{sample.get("scene_name", "")} {folder.name}'.strip())
        for page, image in pages.items():
            write_png(folder / f'{page}.png', image)
        if args.single:
            for name, image in single_pictures(visualizer.painter, sample, maps).items():
                write_png(folder / 'single' / f'{name}.png', image)


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """Builds the model of a config with the weights of a checkpoint, in evaluation mode on the default device.

    Raises:
        CheckpointError: If the weights do not fit.
    """
    model = MODELS.build(cfg.model)
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state = {key.removeprefix('module.'): value for key, value in content.get('state_dict', content).items()}
    report = compare_keys(state, model.state_dict())
    if not report.exact:
        raise CheckpointError(f'the checkpoint does not fit the model of this config: {report.describe()}')
    model.load_state_dict({key: value for key, value in state.items() if key not in report.skipped}, strict=False)
    return model.to(get_device()).eval()


@torch.no_grad()
def predict(model: nn.Module, item: dict) -> tuple[OccDataSample, OccPrediction]:
    """Runs the model on one item of the data set.

    Returns:
        The sample with ``pred_occ``, and the output of the head that it was made from.
    """
    outputs = []
    handle = model.occ_head.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        sample = model.test_step(pseudo_collate([item]))[0]
    finally:
        handle.remove()
    return sample, outputs[0]


def render_maps(
    model: nn.Module, sample: OccDataSample, prediction: OccPrediction, painter: VoxelPainter, how: str
) -> RenderedMaps | None:
    """Class and depth maps of label and prediction in the original cameras, or None if ``how`` says so."""
    if how == 'none':
        return None
    if how == 'rays' or model.aggregator is None:
        return cast_maps(sample, painter)
    maps = {'pred': ([], []), 'gt': ([], [])}
    bev = {}
    # one camera at a time: images of all classes of six full-size cameras take gigabytes
    for camera in range(len(sample.ref2cam)):
        scenes = zip(maps, model.aggregator.render_samples(prediction, [sample], indices=[camera]), strict=True)
        for kind, scene in scenes:
            if scene is not None:
                maps[kind][0].append(scene.cam_sem[0, 0].argmax(-1).cpu().numpy())
                # accumulated depth fades at silhouettes, which looks like near objects: show the mean depth of what is there
                covered = scene.cam_alpha[0, 0] > 0.5
                depth = torch.where(covered, scene.cam_depth[0, 0] / scene.cam_alpha[0, 0], 0)
                maps[kind][1].append(depth.cpu().numpy())
                bev[kind] = scene.bev_sem[0].argmax(-1).cpu().numpy()
    stacked = {kind: [np.stack(part) if part else None for part in parts] for kind, parts in maps.items()}
    return RenderedMaps(
        gt_classes=stacked['gt'][0],
        pred_classes=stacked['pred'][0],
        gt_depth=stacked['gt'][1],
        pred_depth=stacked['pred'][1],
        gt_bev=bev.get('gt'),
        pred_bev=bev['pred'],
        how='Gaussian splatting, depth divided by coverage',
    )


def cast_maps(sample: OccDataSample, painter: VoxelPainter) -> RenderedMaps:
    """Maps by casting one ray per pixel at the voxels; needs no rasteriser."""
    maps = {}
    matrices = project_matrix(sample.ref2cam, sample.cam2img)
    for kind in ('gt', 'pred'):
        labels = sample.get(f'{kind}_occ')
        if labels is not None:
            labels = labels.cpu().numpy()
            views = [
                painter.camera(labels, matrix, int(width), int(height), samples=1)
                for matrix, (width, height) in zip(matrices, sample.ori_img_wh, strict=True)
            ]
            maps[f'{kind}_classes'] = np.stack([view.labels for view in views])
            maps[f'{kind}_depth'] = np.stack([view.depth for view in views])
    return RenderedMaps(**maps, how='one ray per pixel cast at the voxels')


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
