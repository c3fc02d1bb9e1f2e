"""The example of docs/add_a_dataset.md: recordings become a data set that a network learns from."""

import json
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from projects.example_dataset.write_annotations import write_annotations
from projects.occ.datasets import NuScenesOccDataset
from projects.occ.structures import VoxelGrid

CONFIGS = 'projects/example_dataset/configs'
SIZES = {'front': (192, 108), 'left': (160, 120), 'right': (128, 96)}
YAWS = {'front': 0.0, 'left': 60.0, 'right': -60.0}
VEHICLE, FREE = 1, 4


def camera(name):
    """Intrinsics and camera -> reference of a camera 1.5 m above the ground."""
    width, height = SIZES[name]
    yaw = np.deg2rad(YAWS[name])
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    cam2ref = np.eye(4)
    cam2ref[:3, :3] = turn @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    cam2ref[:3, 3] = 0.2, 0.1, 1.5
    return np.array([[0.7 * width, 0, width / 2], [0, 0.7 * width, height / 2], [0, 0, 1]]), cam2ref


@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
    """Five frames: a red box on grey ground in each, somewhere ahead."""
    root = tmp_path_factory.mktemp('recordings')
    rng = np.random.default_rng(0)
    (root / 'labels').mkdir()
    cameras = {name: camera(name) for name in SIZES}
    calibration = {name: dict(cam2img=k.tolist(), cam2ref=pose.tolist()) for name, (k, pose) in cameras.items()}
    (root / 'calibration.json').write_text(json.dumps(calibration))
    boxes = []
    for frame in range(5):
        labels = np.full((80, 80, 10), FREE, np.uint8)
        labels[:, :, :2] = 0
        x, y = int(rng.integers(52, 64)), int(rng.integers(34, 46))
        labels[x : x + 4, y : y + 4, 2:5] = VEHICLE
        np.savez_compressed(root / 'labels' / f'{frame:06d}.npz', semantics=labels)
        centre = np.array([-20 + 0.5 * (x + 2), -20 + 0.5 * (y + 2), -1 + 0.5 * 3.5])
        boxes.append(centre)
        for name, (k, cam2ref) in cameras.items():
            image = np.full((*SIZES[name][::-1], 3), 90, np.uint8)
            place = np.linalg.inv(cam2ref) @ [*centre, 1]
            if place[2] > 1:
                u, v, d = k @ place[:3]
                cv2.circle(image, (int(u / d), int(v / d)), int(k[0, 0] / d), (0, 0, 255), -1)  # BGR
            path = root / 'images' / name / f'{frame:06d}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    write_annotations(root)
    return root, boxes


def load(repo_root, root, name='recordings'):
    cfg = Config.fromfile(repo_root / CONFIGS / f'{name}.py', import_custom_modules=False)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{root}/'
    return cfg


def test_boxes_of_the_labels_lie_on_the_boxes_of_the_images(repo_root, recordings):
    root, boxes = recordings
    args = load(repo_root, root).train_dataloader.dataset.to_dict()
    args.pop('type')
    dataset = NuScenesOccDataset(**{**args, 'pipeline': args['pipeline'][:2]})
    assert len(dataset) == 4
    for item, centre in zip(dataset, boxes):
        assert item['ori_img_wh'].tolist() == [list(size) for size in SIZES.values()]
        grid = VoxelGrid.build(item['grid'])
        index, inside = grid.point_to_index(centre[None])
        assert inside.all() and item['gt_occ'][tuple(index[0])] == VEHICLE
        u, v, d = item['ref2img'][0][:3] @ [*centre, 1]
        blue, green, red = item['img'][0][int(v / d), int(u / d)].astype(int)
        assert d > 5 and red > 200 and blue < 60 and green < 60


def test_a_network_learns_from_them(repo_root, recordings, tmp_path):
    root, _ = recordings
    cfg = load(repo_root, root, 'voxel-network_recordings')
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.update(max_epochs=6, val_interval=6)
    cfg.default_hooks.logger.interval = 1
    import_modules_from_strings(**cfg.custom_imports)
    runner = Runner.from_cfg(cfg)
    runner.train()
    rows = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == 12 and losses[-1] < 0.7 * losses[0], losses
    assert 0 < rows[-1]['occ/IoU'] <= 1 and set(rows[-1]) >= {'occ/mIoU', 'occ/precision'}


def test_the_document_shows_the_files_as_they_are(repo_root):
    text = (repo_root / 'docs' / 'add_a_dataset.md').read_text()
    shown = re.findall(r'<!-- file: (\S+) -->\n```python\n(.*?)```', text, re.S)
    assert [name for name, _ in shown] == [
        'projects/example_dataset/write_annotations.py',
        f'{CONFIGS}/recordings.py',
    ]
    for name, code in shown:
        assert code == (repo_root / name).read_text(), name
