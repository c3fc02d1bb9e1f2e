"""Names of the official weights and ours, in both directions, and the size of the shipped models."""

import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.surroundocc.checkpoint import SOURCES, adapt, identify, to_official, to_project

CONFIG = 'configs/surroundocc/surroundocc_r101-dcn_8xb1-20e_{}.py'
UNUSED = sum(3 * dims + 3 for dims in (128, 256, 512))
NAMES = {
    'img_backbone.layer3.0.conv2.conv_offset.weight': 'img_backbone.layer3.0.conv2.conv_offset.weight',
    'img_neck.fpn_convs.2.conv.bias': 'img_neck.fpn_convs.2.conv.bias',
    'pts_bbox_head.transformer.0.level_embeds': 'view_encoder.transformer.0.level_embeds',
    'pts_bbox_head.transformer.2.encoder.layers.5.deblock.1.0.weight': (
        'view_encoder.transformer.2.encoder.layers.5.deblock.1.0.weight'
    ),
    'pts_bbox_head.transformer.1.reference_points.bias': None,
    'pts_bbox_head.volume_embedding.0.weight': 'view_encoder.volume_embedding.0.weight',
    'pts_bbox_head.transfer_conv.2.0.bias': 'view_encoder.transfer_conv.2.0.bias',
    'pts_bbox_head.deblocks.3.0.weight': 'occ_head.deblocks.3.0.weight',
    'pts_bbox_head.occ.3.weight': 'occ_head.occ.3.weight',
}


@pytest.fixture(scope='module')
def reference(shared_root):
    path = shared_root / 'reference' / 'surroundocc_keys.json'
    if not path.is_file():
        pytest.skip(f'{path} is missing')
    return json.loads(path.read_text())


def build(model):
    """A full-size model without memory."""
    with torch.device('meta'):
        return MODELS.build(model)


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def shapes(state_dict):
    return {key: tuple(value.shape) for key, value in state_dict.items() if not key.endswith('_extra_state')}


def official_shapes(reference, variant):
    """Of a benchmark: the 17-class keys with the shapes that differ there."""
    found = {key: tuple(entry['shape']) for key, entry in reference['keys'].items()}
    found.update({key: tuple(shape) for key, shape in reference['variants'].get(variant, {}).items() if key in found})
    return found


@pytest.mark.parametrize('name, variant', [('surroundocc-nus', 'surroundocc'), ('occ3d-nus', 'occ3d')])
def test_every_official_key_has_its_place_at_full_size(repo_root, reference, name, variant):
    official = official_shapes(reference, variant)
    source, renamed, unknown = to_project(list(official))
    assert source == 'authors' and not unknown and len(official) == reference['num_keys']
    model = build(Config.fromfile(repo_root / CONFIG.format(name)).model)
    state = model.state_dict()
    assert shapes(state) == {renamed[key]: shape for key, shape in official.items() if renamed[key]}
    back, _, unknown = to_official(state)
    assert not unknown and shapes(back) == official
    counts = reference['variant_param_counts'][variant]
    assert trainable(model) + UNUSED == counts['trainable']
    assert sum(p.numel() for p in model.parameters()) + UNUSED == counts['total']
    parameters = dict(model.named_parameters())
    for key, entry in reference['keys'].items():
        if renamed[key] in parameters:
            assert parameters[renamed[key]].requires_grad == entry['trainable'], key


def test_the_binary_model_has_the_shapes_of_the_original(repo_root, reference):
    official = official_shapes(reference, 'nosemantic')
    path = repo_root / 'configs/surroundocc/surroundocc_r101-dcn_binary_8xb1-24e_surroundocc-nus.py'
    back, _, _ = to_official(build(Config.fromfile(path).model).state_dict())
    assert shapes(back) == official


@pytest.mark.parametrize('name, number', [('surroundocc-nus', 180077194), ('occ3d-nus', 180077707)])
def test_size_with_rendering(repo_root, name, number):
    config = Config.fromfile(repo_root / CONFIG.format(name + '_gaussrender')).model
    aggregator = MODELS.build(config.pop('aggregator'), default_args=dict(grid=config.grid))
    assert trainable(build(config)) + trainable(aggregator) == number


def test_size_and_shapes_on_kitti360(repo_root, reference):
    config = Config.fromfile(repo_root / CONFIG.format('sscbench-kitti360_gaussrender')).model
    aggregator = MODELS.build(config.pop('aggregator'), default_args=dict(grid=config.grid))
    model = build(config)
    assert trainable(model) + trainable(aggregator) == 210678412
    counts = reference['variant_param_counts']['kitti360_6cam_embeds']
    assert trainable(model) + UNUSED == counts['trainable']
    assert sum(p.numel() for p in model.parameters()) + UNUSED == counts['total']
    official = official_shapes(reference, 'kitti360')
    _, renamed, _ = to_project(list(official))
    state = model.state_dict()
    assert shapes(state) == {renamed[key]: shape for key, shape in official.items() if renamed[key]}
    back, _, unknown = to_official(state)
    assert not unknown and shapes(back) == official


def test_names():
    assert to_project([*NAMES, 'something.else', 'pts_bbox_head.extra.weight']) == (
        'authors',
        NAMES,
        ['something.else', 'pts_bbox_head.extra.weight'],
    )
    ours = {key: torch.zeros(1) for key in NAMES.values() if key and 'level_embeds' not in key}
    official, renamed, unknown = to_official(ours)
    assert not unknown and renamed == {v: k for k, v in NAMES.items() if v in ours} and set(official) == set(renamed.values())


def test_gaussrender_names():
    names = {key.replace('pts_bbox_head.', 'head.'): value for key, value in NAMES.items()}
    names['head.renderer_prep.decoder.mlp_coarse.4.bias'] = 'aggregator.gaussians.mlp_coarse.4.bias'
    names['head.renderer.bg_color'] = None
    assert to_project(names) == ('gaussrender', names, [])
    ours = {key: torch.zeros(1) for key in names.values() if key and 'level_embeds' not in key}
    ours['aggregator.cameras._extra_state'] = torch.zeros(1)
    official, renamed, unknown = to_official(ours, 'gaussrender')
    assert not unknown and set(official) == {key for key, value in names.items() if value in ours}
    assert renamed['aggregator.cameras._extra_state'] is None
    # the authors' code has no Gaussians
    assert to_official(ours)[1]['aggregator.gaussians.mlp_coarse.4.bias'] is None


def test_layers_that_never_run_come_back_as_zeros_or_as_they_were():
    ours = {'view_encoder.transformer.1.level_embeds': torch.ones(4, 32)}
    prefix = 'pts_bbox_head.transformer.1.reference_points.'
    official, _, _ = to_official(ours)
    assert torch.equal(official[prefix + 'weight'], torch.zeros(3, 32)) and torch.equal(
        official[prefix + 'bias'], torch.zeros(3)
    )
    kept = {prefix + 'weight': torch.ones(3, 32), prefix + 'bias': torch.ones(3)}
    official, _, _ = to_official(ours, dropped=kept)
    assert all(official[key] is value for key, value in kept.items())


def test_image_network():
    names = {
        'module.backbone.layer3.0.conv2_offset.weight': 'img_backbone.layer3.0.conv2.conv_offset.weight',
        'img_backbone.conv1.weight': 'img_backbone.conv1.weight',
        'neck.fpn_convs.3.conv.weight': None,
        'img_neck.lateral_convs.0.conv.bias': None,
        'bbox_head.cls_convs.0.conv.weight': None,
        'bbox_head.scales.0.0.scale': None,
        'pts_bbox_head.conv_dir_cls.bias': None,
    }
    assert to_project(names) == ('image_network', names, [])


@pytest.mark.parametrize(
    'keys',
    [
        ['img_backbone.conv1.weight', 'tpv_head.tpv_embedding_hw.weight'],
        ['img_backbone.conv1.weight', 'pts_bbox_head.transformer.level_embeds'],
        ['conv1.weight', 'layer1.0.conv1.weight'],
        ['img_neck.lateral_convs.0.conv.weight'],
    ],
)
def test_other_models_are_not_recognised(keys):
    assert identify(keys) is None
    with pytest.raises(ValueError, match='no weights of SurroundOcc'):
        to_project(keys)


def test_every_source_is_described():
    keys = ('volume_embedding.0.weight', 'backbone.conv1.weight')
    found = {identify([f'module.{p}{keys[0]}']) for p in ('pts_bbox_head.', 'head.', 'view_encoder.')} | {identify([keys[1]])}
    assert found == set(SOURCES)


def test_partial_state_dicts_can_be_renamed():
    state = {key: torch.zeros(1) for key in NAMES}
    assert set(to_project.state_dict(state, 'authors')) == {value for value in NAMES.values() if value}
    with pytest.raises(KeyError, match='nobody'):
        to_project.state_dict({'nobody.knows': torch.ones(1)}, 'authors')


def test_adapt():
    embeds = torch.arange(12.0).view(6, 2)
    assert torch.equal(adapt('view_encoder.transformer.0.cams_embeds', embeds, torch.zeros(1, 2)), embeds[:1])
    assert adapt('view_encoder.transformer.0.cams_embeds', embeds[:1], embeds) is None
    assert adapt('view_encoder.volume_embedding.0.weight', embeds, torch.zeros(1, 2)) is None
