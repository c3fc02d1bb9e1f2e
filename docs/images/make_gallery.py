"""Draws the pictures of docs/visualization.md from a generated drive. Run it after a change of how things are drawn.

python tools/create_data.py synthetic --preset full --format occ3d --image-size 800x448 --scenes-train 0 --scenes-val 1 \
    --frames 12 --seed 3 --out data/synthetic_drive
python docs/images/make_gallery.py --data data/synthetic_drive [--out DIR] [--html FILE]

The "prediction" is no network's: it is the label of half a second before, taken over as it is.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from projects.occ.datasets import Occ3DNuScenesDataset  # noqa: E402
from projects.occ.structures import OccDataSample  # noqa: E402
from projects.occ.structures.benchmarks import BENCHMARKS, get_benchmark  # noqa: E402
from projects.occ.visualization import CameraPath, OccVisualizer, SceneHtml, cast_maps, rendered_figure, write_video  # noqa: E402
from projects.occ.visualization.dataset_page import dataset_figures  # noqa: E402
from projects.occ.visualization.figure_layout import DPI, write_png  # noqa: E402
from projects.occ.visualization.figures import camera_figure  # noqa: E402
from projects.occ.visualization.occ_visualizer import original_images  # noqa: E402
from projects.occ.visualization.palettes import ERROR_CLASSES, ERROR_PALETTE  # noqa: E402
from projects.occ.visualization.scene_html import sample_frame  # noqa: E402

PIPELINE = [dict(type='LoadMultiViewImages'), dict(type='LoadOccLabels'), dict(type='PackOccInputs')]
SHOWN = 6  # frame of the still pictures


def read_drive(root: Path) -> list[OccDataSample]:
    """The frames of the drive but the first, with the label of the frame before as prediction."""
    dataset = Occ3DNuScenesDataset(
        ann_file='occ_infos_val.pkl',
        data_root=str(root),
        data_prefix=dict(img='nuscenes', pts='nuscenes', occ='occ3d_nuscenes/gts'),
        grid=get_benchmark('occ3d').grid,
        pipeline=PIPELINE,
        test_mode=True,
    )
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    for before, sample in zip(samples, samples[1:]):
        sample.pred_occ = before.gt_occ.clone()
    return samples[1:]


def palette_picture() -> np.ndarray:
    """All colours with names and values, (H, W, 3) uint8."""
    columns = (
        ('nuScenes (Occ3D, SurroundOcc)', BENCHMARKS['occ3d'].palette),
        ('KITTI-360 (SSCBench)', BENCHMARKS['sscbench-kitti360'].palette),
        ('errors', dict(zip(ERROR_CLASSES, ERROR_PALETTE))),
    )
    rows = max(len(colors) for _, colors in columns) + 1
    figure = Figure(figsize=(11.1, 0.26 * rows), dpi=DPI, facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 11.1)
    axes.set_ylim(rows - 0.3, -0.5)
    axes.axis('off')
    for k, (title, colors) in enumerate(columns):
        left = 0.15 + 3.75 * k
        axes.text(left, 0, title, va='center', weight='bold', fontsize=11)
        for i, (name, color) in enumerate(colors.items(), start=1):
            axes.add_patch(Rectangle((left, i - 0.38), 0.45, 0.76, facecolor=np.array(color) / 255, edgecolor='0.5', lw=0.5))
            axes.text(left + 0.6, i, name.replace('_', ' '), va='center', fontsize=10)
            axes.text(left + 2.35, i, '{} {} {}'.format(*color), va='center', fontsize=9, color='0.35')
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def main(argv: list[str] | None = None) -> None:
    """Draws everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='the generated drive')
    parser.add_argument('--out', type=Path, default=Path(__file__).parent, help='folder of the pictures')
    parser.add_argument('--html', type=Path, help='also the drive as a web page, of which viewer.png is a screenshot')
    args = parser.parse_args(argv)

    write_png(args.out / 'palettes.png', palette_picture())
    drive = read_drive(args.data)
    visualizer = OccVisualizer(grid=get_benchmark('occ3d').grid)
    painter = visualizer.painter
    path = CameraPath(width=400)
    pictures = [visualizer.comparison(sample, path, k, f't = {0.5 * (k + 1):.1f} s') for k, sample in enumerate(drive)]
    write_video(args.out / 'drive.gif', pictures, 2)
    sample = drive[SHOWN]
    images = original_images(sample)
    gt = sample.gt_occ.numpy()
    write_png(args.out / 'overlay.png', camera_figure(painter, images, {'label': gt}, 320))
    few = [sample.cam_names.index(name) for name in ('CAM_FRONT', 'CAM_BACK_RIGHT')]
    narrow = OccDataSample(gt_occ=sample.gt_occ, pred_occ=sample.pred_occ)
    narrow.set_metainfo({key: [sample.get(key)[i] for i in few] for key in ('cam_names', 'img_paths')})
    narrow.set_metainfo({key: sample.get(key)[few] for key in ('ref2cam', 'cam2img', 'ori_img_wh')})
    maps = cast_maps(narrow, painter, 480)
    write_png(args.out / 'rendered_maps.png', rendered_figure(painter, maps, original_images(narrow), panel_width=240))
    masks = {key: torch.as_tensor(sample.get(key)).numpy() for key in ('mask_camera', 'mask_lidar')}
    write_png(args.out / 'dataset_page.png', dataset_figures(painter, None, gt, masks, panel_width=400)['label'])
    if args.html:
        scene = SceneHtml(painter, 'A generated drive')
        for k, frame in enumerate(drive):
            scene.add(sample_frame(frame, f't = {0.5 * (k + 1):.1f} s', original_images(frame).images))
        scene.write(args.html)


if __name__ == '__main__':
    main()
