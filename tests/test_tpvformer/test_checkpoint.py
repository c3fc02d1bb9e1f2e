"""Names of the official weights and ours, in both directions."""

import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.tpvformer.checkpoint import SOURCES, adapt, identify, to_official, to_project

MODEL_NAMES = ('occ3d', 'surroundocc')
GUEST = 'aggregator.'
RENDER_PREFIXES = ('aggregator.renderer', 'renderer.')

OFFICIAL = {
    'img_backbone.conv1.weight': 'img_backbone.conv1.weight',
    'img_neck.fpn_convs.3.conv.bias': 'img_neck.fpn_convs.3.conv.bias',
    'head.tpv_embedding_hw.weight': 'view_encoder.tpv_embedding_hw.weight',
    'head.encoder.layers.0.attentions.1.output_proj.bias': 'view_encoder.encoder.layers.0.attentions.1.output_proj.bias',
    'aggregator.decoder.0.weight': 'occ_head.decoder.0.weight',
    'aggregator.classifier.bias': 'occ_head.classifier.bias',
    'aggregator.renderer_prep.decoder.mlp_coarse.4.bias': 'aggregator.gaussians.mlp_coarse.4.bias',
    'aggregator.renderer.bg_color': None,
    'renderer.bg_color': None,
}


@pytest.fixture(scope='module')
def official_keys(shared_root):
    path = shared_root / 'reference' / 'tpvformer_keys.json'
    if not path.is_file():
        pytest.skip(f'{path} is missing')
    models = json.loads(path.read_text())['models']
    return {name: {key: tuple(shape) for key, shape in model['keys']} for name, model in models.items()}


def build(repo_root, name, suffix=''):
    path = repo_root / f'configs/tpvformer/tpvformer_r101-dcn_8xb1-20e_{name}-nus{suffix}.py'
    return MODELS.build(Config.fromfile(path).model)


def shapes(state_dict):
    return {key: tuple(value.shape) for key, value in state_dict.items() if not key.endswith('_extra_state')}


@pytest.mark.parametrize('name', MODEL_NAMES)
def test_every_official_key_has_its_place_at_full_size(repo_root, official_keys, name):
    official = official_keys[name]
    source, renamed, unknown = to_project(list(official))
    assert source == 'gaussrender' and not unknown
    model = build(repo_root, name, '_gaussrender')
    assert shapes(model.state_dict()) == {renamed[key]: shape for key, shape in official.items() if renamed[key]}
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    assert (total, trainable) == dict(occ3d=(62932333, 62604589), surroundocc=(62931819, 62604075))[name]
    back, _, unknown = to_official(model.state_dict())
    assert not unknown and shapes(back) == official


def test_size_for_one_camera(repo_root):
    path = repo_root / 'configs/tpvformer/tpvformer_r101-dcn_8xb1-20e_sscbench-kitti360_gaussrender.py'
    model = MODELS.build(Config.fromfile(path).model)
    # the original has embeddings of 256 channels for six cameras
    assert sum(p.numel() for p in model.parameters()) == 65213295 - 5 * 256
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 64885551 - 5 * 256


@pytest.mark.parametrize('name', MODEL_NAMES)
def test_every_official_key_of_the_model_without_rendering(repo_root, official_keys, name):
    official = {key: shape for key, shape in official_keys[name].items() if not key.startswith(RENDER_PREFIXES)}
    source, renamed, unknown = to_project(list(official))
    assert source == 'gaussrender' and not unknown
    state = build(repo_root, name).state_dict()
    assert shapes(state) == {renamed[key]: shape for key, shape in official.items()}
    back, _, unknown = to_official(state)
    assert not unknown and shapes(back) == official


def test_gaussrender_names():
    source, renamed, unknown = to_project([*OFFICIAL, 'something.else'])
    assert (source, renamed, unknown) == ('gaussrender', OFFICIAL, ['something.else'])


def test_authors_names():
    names = {
        'tpv_head.tpv_embedding_hw.weight': 'view_encoder.tpv_embedding_hw.weight',
        'tpv_head.encoder.ref_3d_hw': 'view_encoder.encoder.ref_3d_hw',
        'tpv_aggregator.decoder.2.bias': 'occ_head.decoder.2.bias',
        'tpv_aggregator.classifier.weight': 'occ_head.classifier.weight',
        'img_neck.lateral_convs.0.conv.weight': 'img_neck.lateral_convs.0.conv.weight',
    }
    assert to_project(names) == ('authors', names, [])
    official, renamed, unknown = to_official({ours: torch.zeros(1) for ours in names.values()}, 'authors')
    assert set(official) == set(names) and not unknown
    assert renamed == {ours: theirs for theirs, ours in names.items()}


def test_first_release_of_the_authors():
    names = {
        'pts_bbox_head.bev_embedding_hw.weight': 'view_encoder.tpv_embedding_hw.weight',
        'pts_bbox_head.transformer.level_embeds': 'view_encoder.level_embeds',
        'pts_bbox_head.transformer.encoder.layers.0.norms.1.bias': 'view_encoder.encoder.layers.0.norms.1.bias',
        'pts_bbox_head.bev_mask_hw': 'view_encoder.tpv_mask_hw',
        'fusion_head.decoder.0.weight': 'occ_head.decoder.0.weight',
    }
    assert to_project(names) == ('authors_old', names, [])
    official, _, _ = to_official({'view_encoder.level_embeds': torch.zeros(1)}, 'authors_old')
    assert list(official) == ['tpv_head.level_embeds']


def test_pretrained_image_network():
    names = {
        'module.backbone.layer3.0.conv2_offset.weight': 'img_backbone.layer3.0.conv2.conv_offset.weight',
        'backbone.layer3.0.conv2.conv_offset.bias': 'img_backbone.layer3.0.conv2.conv_offset.bias',
        'img_backbone.conv1.weight': 'img_backbone.conv1.weight',
        'neck.fpn_convs.3.conv.weight': 'img_neck.fpn_convs.3.conv.weight',
        'neck.fpn_convs.4.conv.weight': None,
        'img_neck.fpn_convs.4.conv.bias': None,
        'bbox_head.cls_convs.0.conv.weight': None,
        'pts_bbox_head.conv_dir_cls.bias': None,
    }
    assert to_project(names) == ('image_network', names, [])


@pytest.mark.parametrize(
    'keys',
    [
        ['img_backbone.conv1.weight', 'pts_bbox_head.volume_embedding.0.weight'],
        ['img_backbone.conv1.weight', 'pts_bbox_head.transformer.0.encoder.layers.0.norms.0.weight'],
        ['encoder.model.backbone.conv1.weight', 'decoder.aspp.blks.0.weight'],
        ['conv1.weight', 'layer1.0.conv1.weight'],
        ['img_neck.lateral_convs.0.conv.weight'],
    ],
)
def test_other_models_are_not_recognised(keys):
    assert identify(keys) is None
    with pytest.raises(ValueError, match='no weights of TPVFormer'):
        to_project(keys)


def test_the_later_variant_is_refused_by_name():
    with pytest.raises(ValueError, match='tpvformer10'):
        identify(['encoder.tpv_embedding_hw.weight', 'encoder.layers.0.attentions.0.value_proj.0.weight'])


def test_every_source_is_described():
    recognised = {
        identify([key])
        for key in (
            'head.tpv_embedding_hw.weight',
            'tpv_head.tpv_embedding_hw.weight',
            'pts_bbox_head.bev_embedding_hw.weight',
            'backbone.conv1.weight',
            'module.view_encoder.tpv_embedding_hw.weight',
        )
    }
    assert recognised == set(SOURCES)


def test_background_colour_is_rebuilt_for_weights_that_were_trained_here():
    ours = {'aggregator.gaussians.mlp_coarse.0.bias': torch.ones(2), 'occ_head.classifier.bias': torch.ones(18)}
    official, renamed, unknown = to_official({**ours, 'aggregator.cameras._extra_state': torch.tensor(3)})
    assert not unknown and renamed['aggregator.cameras._extra_state'] is None
    for key in ('renderer.bg_color', 'aggregator.renderer.bg_color'):
        assert official[key].nonzero().flatten().tolist() == [17] and len(official[key]) == 19
    assert official.keys() - {'renderer.bg_color', 'aggregator.renderer.bg_color'} == {
        'aggregator.renderer_prep.decoder.mlp_coarse.0.bias',
        'aggregator.classifier.bias',
    }


def test_partial_state_dicts_can_be_renamed():
    renamed = to_project.state_dict({'head.level_embeds': torch.ones(3), 'renderer.bg_color': torch.ones(19)}, 'gaussrender')
    assert list(renamed) == ['view_encoder.level_embeds']
    with pytest.raises(KeyError, match='nobody'):
        to_project.state_dict({'nobody.knows': torch.ones(1)}, 'gaussrender')


def test_adapt():
    own = torch.zeros(1, 4, 6, 3)
    assert adapt('view_encoder.encoder.ref_3d_hw', torch.ones(1, 4, 8, 3), own) is own
    embeds = torch.arange(12.0).view(6, 2)
    assert torch.equal(adapt('view_encoder.cams_embeds', embeds, torch.zeros(1, 2)), embeds[:1])
    assert adapt('view_encoder.cams_embeds', embeds[:1], torch.zeros(6, 2)) is None
    assert adapt('view_encoder.tpv_embedding_hw.weight', embeds, torch.zeros(1, 2)) is None
