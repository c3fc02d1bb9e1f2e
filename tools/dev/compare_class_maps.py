"""Lays our rendered label of a real frame beside class maps that somebody else's Gaussian rasteriser made of it.

The sample folder ``nuscenes_val0_scene0003`` (docs/datasets.md, "Real sample frames") holds six class maps of 800 x 450 pixels,
rendered from an occupancy on the Occ3D grid, with Gaussians of 0.2 m and cameras without ego motion. Our label is made from the
LiDAR sweep and the boxes of the same frame. Writes one picture (image | ours | theirs, a row per camera) and prints how well
cars, ground and buildings agree.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmcv  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402

from projects.gaussrender import CameraBatch, GaussRender  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.visualization.figure_layout import write_png  # noqa: E402
from projects.occ.visualization.palettes import palette_for  # noqa: E402
from projects.preparation.label_making import LidarSweep, make_label  # noqa: E402
from tools.dev.real_frame import ROOT, default_shared, read_frames  # noqa: E402

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_FRONT_LEFT')
WIDTH, HEIGHT = 800, 450
# their ids: 0 is nothing, 17..19 are road markings, the others are those of Occ3D
GROUPS = {'car': (4,), 'ground': (11, 12, 13, 14, 17, 18, 19), 'manmade and vegetation': (15, 16)}


def compare(shared: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Renders the label and compares.

    Args:
        shared: Folder of the sample data.

    Returns:
        Picture (6 * 450, 3 * 800, 3) uint8 RGB, and the IoU of each group of classes over all pixels of the six views.

    Raises:
        FileNotFoundError: If the sample data is not there.
    """
    frame = read_frames(shared)[1]
    maps = shared / 'nuscenes_val0_scene0003' / 'occ_render' / 'semantic.npz'
    if not maps.is_file():
        raise FileNotFoundError(f"class maps '{maps}' do not exist; the sample folder is incomplete")
    theirs = np.load(maps)['arr_0']
    record = frame.record
    grid = VoxelGrid.build(Config.fromfile(str(ROOT / 'configs/_base_/datasets/occ3d-nus.py')).grid)
    label = make_label([LidarSweep(frame.points(), np.zeros(3))], record, grid)

    ref2cam = np.stack([np.linalg.inv(record.cameras[name].cam2ego) for name in CAMERAS])
    half = np.diag([0.5, 0.5, 1.0])
    K = np.stack([half @ record.cameras[name].cam2img for name in CAMERAS])
    cameras = CameraBatch(torch.from_numpy(ref2cam[None]).float(), torch.from_numpy(K[None]).float(), WIDTH, HEIGHT)
    render = GaussRender(grid=grid, gaussians=dict(gaussian_scale=0.2), cameras=dict(type='SensorCameras'))
    scene = render.render_labels(torch.from_numpy(label.semantics[None].astype(np.int64)), cameras, with_bev=False)
    ours = scene.cam_sem[0].argmax(-1).numpy()

    colors = palette_for(grid.class_names, grid.free_index)
    their_colors = np.concatenate([colors[:17], np.repeat(colors[11:12], 3, axis=0)])
    their_colors[0] = colors[grid.free_index]
    rows = []
    for index, name in enumerate(CAMERAS):
        image = mmcv.imread(frame.sources[record.cameras[name].img_path], channel_order='rgb')
        image = mmcv.imresize(image, (WIDTH, HEIGHT), interpolation='area')
        rows.append(np.concatenate([image, colors[ours[index]], their_colors[theirs[index]]], axis=1))
    scores = {}
    for group, ids in GROUPS.items():
        a, b = np.isin(ours, ids) & (ours != grid.free_index), np.isin(theirs, ids)
        scores[group] = float((a & b).sum() / (a | b).sum())
    return np.concatenate(rows), scores


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shared', type=Path, default=default_shared(), help='folder of the sample data [%(default)s]')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/real_frame/class_maps.png', help='[%(default)s]')
    args = parser.parse_args(argv)
    try:
        picture, scores = compare(args.shared)
    except FileNotFoundError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    write_png(args.out, picture)
    print('IoU of our rendered label with the foreign class maps: ' + ', '.join(f'{k} {v:.2f}' for k, v in scores.items()))
    print(f'look at: {args.out} (image | ours | theirs)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
