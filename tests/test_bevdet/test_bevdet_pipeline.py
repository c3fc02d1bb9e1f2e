"""Image augmentation of the configs against the draws and matrices of the original."""

import re

import numpy as np
import pytest
import torch
from mmengine.config import Config

from projects.occ.datasets import ResizeCropFlipImages
from projects.occ.datasets.transforms.grid_mirror import RandomMirrorGrid
from projects.occ.structures import VoxelGrid

CONFIGS = dict(r50='r50-4d-stereo_8xb4-24e', swin='swinb-4d-stereo-512x1408_32xb2-24e')
SOURCE_WH = (1600, 900)


@pytest.fixture(scope='module')
def golden(golden_dir):
    return torch.load(golden_dir / 'bevstereo_occ_small.pt', weights_only=True)['cases']['pipeline']


def augmentation(repo_root, name, split):
    cfg = Config.fromfile(repo_root / f'configs/bevdet/bevdet_{CONFIGS[name]}_occ3d-nus.py', import_custom_modules=False)
    steps = cfg[f'{split}_dataloader'].dataset.pipeline
    (step,) = [dict(step) for step in steps if step['type'] == 'ResizeCropFlipImages']
    step.pop('type')
    return ResizeCropFlipImages(**step)


def shares(transform, case):
    """The draws of our transform, between 0 and 1, that give a case: resize, bottom, left edge, flip, angle."""
    (low, high), (right, left) = transform.resize_lim, transform.rot_lim
    spare = max(0, case['resize_dims'][0] - transform.final_wh[0])
    return (
        (case['resize'] - low) / (high - low),
        0.5,
        (case['crop'][0] + 0.5) / spare if spare else 0.5,
        0.25 if case['flip'] else 0.75,
        (case['rotate'] - right) / (left - right),
    )


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_matrices(repo_root, golden, name, split):
    transform = augmentation(repo_root, name, split)
    assert transform.training == (split == 'train') and (transform.per_camera or split == 'test')
    width, height = SOURCE_WH
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for case in golden[f'{name}_{split}']:
        draws = shares(transform, case) if split == 'train' else None
        if draws is not None:
            assert all(0 <= share <= 1 for share in draws)
        small, matrix = transform._apply(image, draws)
        assert small.shape[1::-1] == tuple(transform.final_wh)
        theirs = np.eye(3)
        theirs[:2, :2], theirs[:2, 2] = case['post_rot'].numpy(), case['post_tran'].numpy()
        # the original scales by the drawn factor, not by the ratio of the whole sizes: less than a pixel at the far side
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], dtype=np.float64).T
        assert np.abs(matrix @ corners - theirs @ corners).max() < 1.5
        np.testing.assert_allclose(matrix[:2, :2], theirs[:2, :2], atol=2e-3)
        rounded = np.array(case['resize_dims']) / SOURCE_WH
        scale = np.diag([*(rounded / case['resize']), 1.0])
        np.testing.assert_allclose(matrix, theirs @ scale, atol=1e-4)


def test_mirrors(golden):
    grid = VoxelGrid((-4, -4, -2, 4, 4, 2), 1, (8, 8, 4), 'ego', 0, class_names=('free', 'car'))
    for case in golden['bda']:
        if case['rotate_deg'] != 0 or case['scale'] != 1:
            continue  # labels have no counterpart, so occupancy networks do not train with them
        transform = RandomMirrorGrid(float(case['flip_dx']), float(case['flip_dy']))
        eye = np.eye(4)[None]
        results = transform(dict(grid=grid, ref2cam=eye, ref2img=eye))
        assert np.array_equal(results['scene'], case['matrix'].numpy())


def test_normalisation(repo_root, golden):
    """B, G, R with the statistics of R, G, B, as the released weights saw pictures."""
    cfg = Config.fromfile(repo_root / f'configs/bevdet/bevdet_{CONFIGS["r50"]}_occ3d-nus.py', import_custom_modules=False)
    options = cfg.model.data_preprocessor
    assert options.bgr_to_rgb is False and re.fullmatch('OccDataPreprocessor', options.type)
    picture = golden['picture']
    bgr = picture['rgb_out'].flip(-1).permute(2, 0, 1).float()
    mean, std = (torch.tensor(options[key])[:, None, None] for key in ('mean', 'std'))
    torch.testing.assert_close((bgr - mean) / std, picture['normalised'], atol=1e-5, rtol=0)
