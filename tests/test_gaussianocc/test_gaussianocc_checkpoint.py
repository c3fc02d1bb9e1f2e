"""Names of the published weights and ours, in both directions, and the networks at their published widths."""

import json
import math
import zlib

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from small_gaussianocc import normalised
from torch.testing import assert_close

from projects.gaussianocc.checkpoint import (
    POSE_NETWORK,
    SOURCES,
    adapt,
    identify,
    to_official,
    to_project,
)
from projects.gaussianocc.hourglass_network import HourglassNetwork

UNUSED = ('classif3', 'classif_flow', 'refine_mlp', 'finial_conv', 'fc', 'Zval', 'xyz_', 'scene_centroid', 'posfreq')


@pytest.fixture(scope='module')
def official_keys(shared_root):
    path = shared_root / 'reference' / 'gaussianocc_keys.json'
    if not path.is_file():
        pytest.skip(f'{path} is missing')
    networks = json.loads(path.read_text())
    return {f'{network}.{key}': tuple(shape) for network, keys in networks.items() for key, shape in keys.items()}


@pytest.fixture(scope='module')
def networks(repo_root):
    """Image encoder with neck, 3D network and pose network at full size; the grid is small, which no weight depends on."""
    cfg = Config.fromfile(repo_root / 'configs/_base_/models/gaussianocc.py')
    for block in (cfg.model.img_backbone, cfg.pose_network.backbone):
        block.init_cfg = None
    head = cfg.model.occ_head
    return dict(
        img_backbone=MODELS.build(cfg.model.img_backbone),
        img_neck=MODELS.build(cfg.model.img_neck),
        **{'occ_head.network': HourglassNetwork(head.in_dims, head.channels, 18)},
        **{POSE_NETWORK.removesuffix('.'): MODELS.build(cfg.pose_network)},
    )


def state_of(networks):
    return {f'{name}.{key}': value for name, module in networks.items() for key, value in module.state_dict().items()}


def shapes(state_dict):
    return {key: tuple(value.shape) for key, value in state_dict.items()}


def count(modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_every_official_key_has_its_place_at_full_size(networks, official_keys):
    source, renamed, unknown = to_project(list(official_keys))
    assert source == 'authors' and not unknown
    left_out = [key for key, new in renamed.items() if new is None]
    assert left_out and all(any(word in key for word in UNUSED) for key in left_out)
    state = state_of(networks)
    assert shapes(state) == {renamed[key]: shape for key, shape in official_keys.items() if renamed[key]}
    back, _, unknown = to_official(state)
    assert not unknown
    assert shapes(back) == {key: shape for key, shape in official_keys.items() if renamed[key]}
    dropped = {key: torch.zeros(official_keys[key]) for key in left_out}
    assert shapes(to_official(state, 'authors', dropped)[0]) == official_keys


def test_published_parameter_counts(networks):
    assert count([networks['img_backbone'], networks['img_neck']]) == 38_758_528
    assert count([networks['occ_head.network']]) == 1_925_924
    pose = networks[POSE_NETWORK.removesuffix('.')]
    assert count([pose.backbone]) == 21_807_080 - 513_000  # without the classifier of ImageNet
    assert count([pose.net]) == 1_314_572


def test_parameters_of_the_hourglasses(networks):
    network = networks['occ_head.network']
    assert count([network.dres0]) == 83_072 and count([network.dres1]) == 55_424
    assert [count([part]) for part in (network.dres2, network.dres3, network.dres4)] == [553_664] * 3
    assert count([network.classif_semantic]) == 126_436


def weights_by_rule(keys, salt):
    """Weights that the parity case makes from the names of the entries."""
    weights = {}
    for key, shape in keys.items():
        if 'num_batches_tracked' in key or any(word in key for word in ('Zval', 'xyz_', 'scene_centroid', 'posfreq')):
            continue
        x = np.random.RandomState(zlib.crc32((salt + key).encode())).standard_normal(math.prod(shape)).astype(np.float32)
        x = torch.from_numpy(x).view(shape)
        if key.endswith('running_var'):
            x = 0.6 + 0.4 * x.abs()
        elif len(shape) > 1:
            x = x * math.sqrt(2 / math.prod(shape[1:]))
        else:
            x = 1 + 0.1 * x if key.endswith('weight') else 0.1 * x
        weights[key] = x
    return weights


def test_networks_at_their_published_widths(networks, official_keys, case):
    wide = case['official_width']
    ours = to_project.state_dict(weights_by_rule(official_keys, wide['salt']), 'authors')
    for name, module in networks.items():
        part = {key.removeprefix(name + '.'): value for key, value in ours.items() if key.startswith(name + '.')}
        left = module.load_state_dict(part, strict=False)
        assert not left.unexpected_keys and all('num_batches_tracked' in key for key in left.missing_keys)
        module.eval()
    pose = networks[POSE_NETWORK.removesuffix('.')]
    with torch.no_grad():
        features = networks['img_neck'](networks['img_backbone'](normalised(wide['encoder_in'])))[0]
        logits = networks['occ_head.network'](wide['cnn_in'].float())
        images = wide['pose_in'].float() / 255
        pose_features = pose.backbone((images - 0.45) / 0.225)[-1]
        vector = pose(images[None, :, :3], images[None, :, 3:])
    scale = float(wide['encoder_out'].abs().max())
    assert_close(features, wide['encoder_out'], rtol=0, atol=1e-4 * max(scale, 1))
    assert_close(logits, wide['cnn_out'], rtol=0, atol=1e-4 * max(float(wide['cnn_out'].abs().max()), 1))
    assert_close(pose_features, wide['pose_feature'], rtol=0, atol=1e-4 * max(float(wide['pose_feature'].abs().max()), 1))
    for mine, theirs in zip(vector, (wide['axisangle'], wide['translation'])):
        assert_close(mine[0], theirs[0, 0, 0], rtol=0, atol=1e-4 * max(float(theirs.abs().max()), 1))


def test_a_folder_with_the_pose_network_alone(official_keys):
    pose = [key for key in official_keys if key.startswith(('pose.', 'pose_encoder.'))]
    source, renamed, unknown = to_project(pose)
    assert source == 'authors_pose' and not unknown
    assert all(new is None or new.startswith(POSE_NETWORK) for new in renamed.values())


def test_image_size_and_unknown_entries():
    keys = [
        'encoder.height',
        'encoder.width',
        'depth._3DCNN.dres0.0.0.weight',
        'encoder.other.weight',
        'module.pose.net.0.bias',
    ]
    source, renamed, unknown = to_project(keys)
    assert source == 'authors' and unknown == ['encoder.other.weight']
    assert renamed['encoder.height'] is None and renamed['encoder.width'] is None
    assert renamed['module.pose.net.0.bias'] == POSE_NETWORK + 'net.0.bias'


def test_foreign_files_are_not_ours():
    with pytest.raises(ValueError, match='GaussianOcc'):
        to_project(['img_backbone.conv1.weight', 'head.tpv_embedding_hw.weight'])
    assert identify(['occ_head.network.dres0.0.0.weight']) == 'project' and set(SOURCES) >= {'authors', 'project'}
    assert adapt('img_neck.out_conv.weight', torch.zeros(1), torch.zeros(2)) is None


def test_image_weights_of_one_frame_are_spread_over_two(networks):
    pose = networks[POSE_NETWORK.removesuffix('.')]
    given = torch.randn(64, 3, 7, 7)
    pose.backbone.conv1.load_state_dict(dict(weight=given))
    images = torch.rand(2, 3, 32, 32)
    expected = torch.nn.functional.conv2d(images, given, stride=2, padding=3)
    assert_close(pose.backbone.conv1(torch.cat([images, images], 1)), expected, rtol=0, atol=1e-4)
