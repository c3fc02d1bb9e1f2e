"""The configs: full-size models with the published names and sizes, small ones that take a training step."""

import json

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config

from projects.gaussianocc.checkpoint import POSE_NETWORK, to_project
from projects.rendering.regularizers import class_weights
from projects.streets import build_config, generate_ddad

FULL = (
    'gaussianocc_r101_8xb1-12e_occ3d-nus',
    'gaussianocc_r101_gt-pose_8xb1-12e_occ3d-nus',
    'gaussianocc_r101_march_8xb1-12e_occ3d-nus',
    'gaussianocc_r101_8xb1-12e_ddad',
)
STAGE1 = ('gaussianocc-stage1_r50_8xb1-8e_nus', 'gaussianocc-stage1_r50_8xb1-12e_ddad')


def load(repo_root, name, folder='gaussianocc'):
    return Config.fromfile(repo_root / f'configs/{folder}/{name}.py')


@pytest.mark.parametrize('name', FULL)
def test_full_size_models_take_the_published_weights(repo_root, shared_root, name):
    keys = json.loads((shared_root / 'reference' / 'gaussianocc_keys.json').read_text())
    official = {f'{network}.{key}': tuple(shape) for network, part in keys.items() for key, shape in part.items()}
    cfg = load(repo_root, name)
    model = MODELS.build(cfg.model)
    learned = cfg.model.aggregator.target.poses is not None
    _, renamed, _ = to_project(list(official))
    expected = {renamed[key]: shape for key, shape in official.items() if renamed[key]}
    if not learned:
        expected = {key: shape for key, shape in expected.items() if not key.startswith(POSE_NETWORK)}
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 38_758_528 + 1_925_924
    model.train()
    if learned:
        assert not any(module.training for module in model.aggregator.target.poses.modules())
    assert tuple(model.aggregator.field.scales.shape) == (300, 300, 24, 1)


def test_a_foreign_host(repo_root):
    cfg = load(repo_root, 'tpvformer_r101-dcn_8xb1-20e_occ3d-nus_gaussianocc')
    cfg.model.img_backbone.depth = 50
    model = MODELS.build(cfg.model)
    assert model.occ_head.loss_occ is None and set(model.aggregator.terms) >= {'loss_photometric', 'loss_pseudo_sem'}
    assert tuple(model.aggregator.field.scales.shape[:3]) == model.grid.shape
    assert not model.aggregator.state_dict()


def test_class_weights_are_those_of_the_published_frequencies(repo_root, golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    weights = load(repo_root, FULL[0]).model.aggregator.terms.loss_pseudo_sem.options.class_weights
    frequencies = json.loads(case['config_json'])['class_frequencies']
    torch.testing.assert_close(torch.tensor(weights).double(), class_weights(frequencies), rtol=0, atol=5.1e-5)


@pytest.mark.parametrize('name', STAGE1)
def test_full_size_models_of_stage_1(repo_root, name):
    model = MODELS.build(load(repo_root, name).model)
    poses = sum(p.numel() for p in model.pose_network.parameters())
    assert poses == 21_807_080 - 513_000 + 1_314_572
    assert sum(p.numel() for p in model.depth_network.parameters()) > 20_000_000


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp('ddad')
    config = build_config(formats=('occ3d',), image_size=(192, 120), scenes_train=1, scenes_val=1, frames=3, seed=3)
    generate_ddad(config, root, workers=1, progress=False)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'gaussianocc-stage1_tiny_synthetic-ddad',
        'gaussianocc_tiny_synthetic-ddad',
        'gaussianocc_tiny_synthetic-ddad_march',
    ],
)
def test_small_models_learn_from_generated_drives(repo_root, drives, name):
    """Through the real loaders; two steps on one frame lower the loss without the warm-up's term."""
    cfg = load(repo_root, name, 'debug')
    block = cfg.train_dataloader.dataset
    block.data_root = str(drives)
    dataset = DATASETS.build(block)
    assert len(dataset) == 1
    item = dataset[0]
    data = dict(
        inputs={key: [value] for key, value in item['inputs'].items()},
        data_samples=[item['data_samples']],
    )
    model = MODELS.build(cfg.model).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    totals = []
    for _ in range(4):
        torch.manual_seed(0)
        losses = model(**model.data_preprocessor(data, True), mode='loss')
        total = sum(loss for key, loss in losses.items() if key != 'loss_cross_view')
        assert all(loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
