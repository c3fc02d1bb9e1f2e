"""Names of the official weights and ours, in both directions."""

import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from official_config import model_config_from_official

from projects.bevdet.checkpoint import SOURCES, adapt, identify, to_official, to_project

SIZES = dict(bevstereo4d_occ_r50_256x704=34969712, bevstereo4d_occ_swinb_512x1408=121278120, renderocc_swinb_512x1408=121280297)
PARTS = {  # of the model with ResNet-50 and of that with Swin-B
    'img_backbone': (23508032, 86879608),
    'img_neck': (1377024, 9439232),
    'view_encoder.depth_net': (5840638, 20715262),
    'view_encoder.frame_net': (83136, 83136),
    'view_encoder.voxel_encoder': (4122688, 4122688),
    'view_encoder.voxel_neck': (7232, 7232),
    'occ_head.final_conv': (27680, 27680),
    'occ_head.predictor': (3282, 3282),
}


@pytest.fixture(scope='module')
def official_keys(shared_root):
    path = shared_root / 'reference' / 'bevdet_occ_keys.json'
    if not path.is_file():
        pytest.skip(f'{path} is missing')
    return {name: {key: tuple(shape) for key, shape in keys.items()} for name, keys in json.loads(path.read_text()).items()}


def build(repo_root, name):
    """The model of a base config; RenderOcc is the one with Swin-B and another head."""
    cfg = Config.fromfile(repo_root / f'configs/_base_/models/bevdet{"" if "_r50_" in name else "_swinb"}.py').model
    cfg.grid = Config.fromfile(repo_root / 'configs/_base_/datasets/occ3d-nus.py').grid
    if name.startswith('renderocc'):
        cfg.occ_head.type = 'DensityOccHead'
    return MODELS.build(cfg)


def shapes(state_dict):
    return {key: tuple(value.shape) for key, value in state_dict.items()}


@pytest.mark.parametrize('name', SIZES)
def test_every_official_key_has_its_place_at_full_size(repo_root, official_keys, name):
    official = official_keys[name]
    source, renamed, unknown = to_project(list(official))
    assert source == ('renderocc' if name.startswith('renderocc') else 'bevdet') and not unknown
    model = build(repo_root, name)
    state = model.state_dict()
    assert shapes(state) == {renamed[key]: shape for key, shape in official.items() if renamed[key]}
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]
    assert all(p.requires_grad for p in model.parameters())
    if not name.startswith('renderocc'):
        column = int('_swinb_' in name)
        parts = {part: sum(p.numel() for p in model.get_submodule(part).parameters()) for part in PARTS}
        assert parts == {part: sizes[column] for part, sizes in PARTS.items()}
    back, _, unknown = to_official(state)
    assert not unknown and shapes(back) == official
    assert all(torch.equal(back[key], state[renamed[key]]) for key in official if renamed[key])


def test_constants_of_renderocc(repo_root):
    ours = {'occ_head.density_mlp.0.bias': torch.ones(64), 'occ_head.semantic_mlp.2.bias': torch.ones(17)}
    constants, _, _ = to_official(ours)
    assert constants['semantic_loss.weight'][:3].tolist() == pytest.approx([0.0716, 0.0682, 0.0823], abs=5e-5)
    assert constants['nerf_head.xyz_max'].tolist() == pytest.approx([40 / 39, 40 / 39, 0.08])
    assert constants['nerf_head.act_shift'].item() == pytest.approx(-13.8155, abs=1e-4)
    other, _, unknown = to_official({**ours, 'occ_head.semantic_mlp.2.bias': torch.ones(5)})
    assert sorted(other) == ['density_mlp.0.bias', 'semantic_mlp.2.bias'] and not unknown
    kept, _, _ = to_official(ours, 'renderocc', {'semantic_loss.weight': torch.zeros(17)})
    assert not kept['semantic_loss.weight'].any() and not any(key.startswith('nerf_head.') for key in kept)


def test_constants_of_the_released_head(golden_dir):
    case = torch.load(golden_dir / 'bevstereo_occ_small.pt', weights_only=True)['cases']['nerf_default']['constants']
    ours = {'occ_head.density_mlp.0.bias': torch.ones(64), 'occ_head.semantic_mlp.2.bias': torch.ones(17)}
    constants, _, _ = to_official(ours)
    for name in ('xyz_min', 'xyz_max', 'act_shift'):
        torch.testing.assert_close(constants[f'nerf_head.{name}'], case[name])
    torch.testing.assert_close(constants['semantic_loss.weight'], case['class_weights'])


def test_single_frame_network_and_the_names_of_flashocc(golden_dir):
    case = torch.load(golden_dir / 'bevstereo_occ_small.pt', weights_only=True)['cases']['r50_single']
    config = json.loads(case['config_json'])
    model = MODELS.build(model_config_from_official(dict(config['model'], out_dim=config['out_dim'])))
    moved = {
        f'occ_head.{key}' if key.startswith(('final_conv.', 'predicter.')) else key: value
        for key, value in case['state_dict'].items()
    }
    assert to_project(list(case['state_dict']))[0] == 'bevdet'
    source, renamed, unknown = to_project(list(moved))
    assert source == 'flashocc' and not unknown
    ours = to_project.state_dict(moved, 'flashocc')
    model.load_state_dict(ours, strict=True)
    assert to_official(ours, 'flashocc')[0].keys() == moved.keys()
    assert to_official(ours)[0].keys() == case['state_dict'].keys()


def test_detection_network():
    names = {
        'module.img_backbone.conv1.weight': 'img_backbone.conv1.weight',
        'img_view_transformer.depth_net.depth_conv.3.aspp4.bn.weight': 'view_encoder.depth_net.aspp.convs.3.1.weight',
        'img_view_transformer.depth_net.depth_conv.3.global_avg_pool.2.bias': 'view_encoder.depth_net.aspp.convs.4.2.bias',
        'img_bev_encoder_backbone.layers.0.0.conv1.weight': None,
        'pre_process_net.layers.0.0.conv1.weight': None,
        'pts_bbox_head.shared_conv.conv.weight': None,
    }
    assert to_project(names) == ('image_network', names, [])


@pytest.mark.parametrize(
    'keys',
    [
        ['img_backbone.conv1.weight', 'pts_bbox_head.volume_embedding.0.weight'],
        ['img_backbone.conv1.weight', 'img_view_transformer.depth_net.weight', 'decoder.weight'],
        ['view_encoder.tpv_embedding_hw.weight'],
    ],
)
def test_other_models_are_not_recognised(keys):
    assert identify(keys) is None
    with pytest.raises(ValueError, match='no weights of the BEVDet series'):
        to_project(keys)


def test_every_source_is_described():
    lift = 'img_view_transformer.depth_net.bn.weight'
    recognised = {
        identify(keys)
        for keys in (
            [lift, 'predicter.0.weight'],
            [lift, 'density_mlp.0.weight'],
            [lift, 'occ_head.predicter.0.weight'],
            [lift, 'img_backbone.conv1.weight'],
            ['view_encoder.voxel_encoder.layers.0.0.conv1.conv.weight'],
        )
    }
    assert recognised == set(SOURCES)


def test_unknown_names():
    lift = 'img_view_transformer.depth_net.bn.weight'
    assert to_project([lift, 'predicter.0.weight', 'something.else'])[2] == ['something.else']
    with pytest.raises(KeyError, match='nobody'):
        to_project.state_dict({'nobody.knows': torch.ones(1)}, 'bevdet')
    official, renamed, unknown = to_official({'aggregator.x': torch.ones(1), 'other.y': torch.ones(1)}, 'bevdet')
    assert renamed == {'aggregator.x': None} and unknown == ['other.y'] and not official
    assert adapt('view_encoder.depth_net.depth_conv.weight', torch.ones(2), torch.ones(3)) is None
