"""Names of the official weights and ours, in both directions, and the size of the shipped model."""

import json
import math

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.symphonies.checkpoint import SOURCES, adapt, identify, to_official, to_project

CONFIG = 'configs/symphonies/symphonies_r50_4xb1-30e_sscbench-kitti360.py'
LAYER = 'decoder.layers.0.'
NAMES = {
    'encoder.model.backbone.layer1.0.conv2.weight': 'img_backbone.layer1.0.conv2.weight',
    'encoder.model.panoptic_head.pixel_decoder.input_proj.3.0.weight': 'img_neck.input_proj.3.0.weight',
    'encoder.model.panoptic_head.pixel_decoder.transformer.level_embed': 'img_neck.level_embed',
    'encoder.model.panoptic_head.pixel_decoder.transformer.encoder.layers.5.norms.1.bias': (
        'img_neck.encoder.layers.5.norms.1.bias'
    ),
    'encoder.model.panoptic_head.pixel_decoder.adapter_1.gn.weight': 'img_neck.adapter_1.gn.weight',
    'encoder.model.panoptic_head.criterion.empty_weight': None,
    'encoder.query_embed.weight': 'view_encoder.query_embed.weight',
    'encoder.out_projs.2.3.bias': 'view_encoder.out_projs.2.3.bias',
    'decoder.image_grid': None,
    'decoder.voxel_grid': None,
    'decoder.scene_embed.weight': 'view_encoder.scene_embed.weight',
    'decoder.scene_pos.embeds.2.weight': 'view_encoder.scene_pos.embeds.2.weight',
    'decoder.voxel_proposal.attn.attn.value_proj.weight': 'view_encoder.voxel_proposal.attn.value_proj.weight',
    'decoder.voxel_proposal.attn.ffn.2.bias': 'view_encoder.voxel_proposal.ffn.2.bias',
    f'{LAYER}query_image_cross_defrom_attn.attn.value_proj.bias': (
        'view_encoder.layers.0.query_image_cross_deform_attn.attn.value_proj.bias'
    ),
    f'{LAYER}scene_self_deform_attn.attn.attns.0.output_proj.bias': (
        'view_encoder.layers.0.scene_self_deform_attn.attn.output_proj.bias'
    ),
    f'{LAYER}query_scene_cross_deform_attn.attn.attns.0.value_proj.bias': (
        'view_encoder.layers.0.query_scene_cross_deform_attn.attn.value_proj.bias'
    ),
    f'{LAYER}query_self_attn.attn.in_proj_bias': 'view_encoder.layers.0.query_self_attn.attn.in_proj_bias',
    'decoder.aspp.blks.1.4.running_var': 'view_encoder.aspp.blks.1.4.running_var',
    'decoder.cls_head.0.0.bias': 'occ_head.up_z.0.bias',
    'decoder.cls_head.1.up_bn.1.weight': 'occ_head.up.1.weight',
    'decoder.cls_head.2.weight': 'occ_head.classifier.weight',
}


@pytest.fixture(scope='module')
def reference(shared_root):
    path = shared_root / 'reference' / 'symphonies_keys.json'
    if not path.is_file():
        pytest.skip(f'{path} is missing')
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def model(repo_root):
    """At full size, without memory."""
    init_default_scope('mmdet3d')
    config = Config.fromfile(repo_root / CONFIG).model
    with torch.device('meta'):
        return MODELS.build(config)


def test_every_official_key_has_its_place_at_full_size(reference, model):
    official = {key: tuple(entry['shape']) for key, entry in reference['state_dict'].items()}
    source, renamed, unknown = to_project(list(official))
    assert source == 'authors' and not unknown and len(official) == reference['num_entries'] == 691
    state = model.state_dict()
    ours = {renamed[key]: shape for key, shape in official.items() if renamed[key]}
    assert {key: tuple(value.shape) for key, value in state.items()} == ours
    assert [key for key, new in renamed.items() if new is None] == reference['buffers_not_learned']
    for key, entry in reference['state_dict'].items():
        if renamed[key]:
            assert str(state[renamed[key]].dtype) == f'torch.{entry["dtype"]}', key
    back, _, unknown = to_official(state, 'authors')
    assert not unknown and {key: tuple(value.shape) for key, value in back.items()} == official
    back, _, _ = to_official(state)
    assert set(back) == {reference['lightning_checkpoint_prefix'] + key for key in official}


def test_number_of_parameters(reference, model):
    """The released count of trainable parameters includes the unused mask branch; everything else is as released."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    _, renamed, _ = to_project([*reference['state_dict']])
    unused = {renamed[key] for key in reference['parameters_never_receiving_gradient']}
    size_of_unused = sum(
        math.prod(reference['state_dict'][key]['shape']) for key in reference['parameters_never_receiving_gradient']
    )
    assert total == reference['num_parameters_total'] == 59309915
    assert size_of_unused == 722176 and trainable + size_of_unused == reference['num_parameters_requires_grad'] == 59256795
    assert unused < frozen and len(frozen - unused) == reference['frozen_parameters_count'] == 106
    assert all(name.startswith('img_backbone.') for name in frozen - unused)


def test_names():
    assert to_project([*NAMES, 'decoder.extra.weight', 'model.decoder.aspp.x']) == (
        'authors',
        NAMES,
        ['decoder.extra.weight', 'model.decoder.aspp.x'],
    )
    ours = {key: torch.zeros(1) for key in NAMES.values() if key}
    official, renamed, unknown = to_official(ours, 'authors', dropped={})
    assert not unknown and renamed == {v: k for k, v in NAMES.items() if v} and set(official) == set(renamed.values())


def test_lightning_names():
    names = {f'model.{key}': value for key, value in NAMES.items()}
    assert to_project([*names, 'decoder.aspp.x']) == ('lightning', names, ['decoder.aspp.x'])
    assert to_project(['module.model.decoder.scene_embed.weight'])[0] == 'lightning'
    ours = {key: torch.zeros(1) for key in names.values() if key}
    for source in ('lightning', 'project'):
        assert set(to_official(ours, source, dropped={})[0]) == {key for key, value in names.items() if value}


def test_maskdino_names():
    mark = 'encoder.model.'
    names = {key.removeprefix(mark): value for key, value in NAMES.items() if key.startswith(mark)}
    names['panoptic_head.predictor.decoder.layers.3.norm1.weight'] = None
    assert to_project(names) == ('image_network', names, [])
    ours = {key: torch.zeros(1) for key in names.values() if key}
    official, renamed, unknown = to_official(ours, 'image_network')
    assert not unknown and renamed == {value: key for key, value in names.items() if value}
    assert set(official) == set(renamed.values())


def test_rendering_and_strangers_in_our_weights():
    ours = {'aggregator.gaussians.mlp_coarse.0.weight': torch.ones(1), 'aggregator.cameras._extra_state': torch.ones(1)}
    official, renamed, unknown = to_official({**ours, 'nobody.knows': torch.ones(1)}, dropped={})
    assert not official and set(renamed.values()) == {None} and unknown == ['nobody.knows']


@pytest.fixture(scope='module')
def case(golden_dir):
    return torch.load(golden_dir / 'symphonies_small.pt', weights_only=True)


def test_buffers_of_the_original_are_computed_or_put_back(case):
    given = case['state_dict']
    ours = to_project.state_dict(given, 'authors')
    grids = {'decoder.image_grid', 'decoder.voxel_grid', 'encoder.model.panoptic_head.criterion.empty_weight'}
    dropped = {key: given[key] for key in grids}
    official, _, _ = to_official(ours, 'authors', dropped)
    assert official.keys() == given.keys() and all(torch.equal(official[key], given[key]) for key in given)
    computed, _, _ = to_official(ours, 'authors')
    assert computed.keys() == given.keys()
    assert torch.equal(computed['decoder.voxel_grid'], given['decoder.voxel_grid'])
    constant = computed['encoder.model.panoptic_head.criterion.empty_weight']
    assert constant.shape == (134,) and (constant[:-1] == 1).all() and constant[-1] == torch.tensor(0.1)
    grid = computed['decoder.image_grid']
    assert grid.shape == (1, 2, 376, 1408) and torch.equal(grid[..., :56, :104], given['decoder.image_grid'])
    ours['occ_head.classifier.bias'] = torch.zeros(20)
    assert to_official(ours, 'authors')[0]['decoder.image_grid'].shape == (1, 2, 370, 1220)
    ours['occ_head.classifier.bias'] = torch.zeros(5)
    assert 'decoder.image_grid' not in to_official(ours, 'authors')[0]
    # one row of the tables less along x: sub-cells that the original does not have
    ours['view_encoder.scene_pos.embeds.0.weight'] = torch.zeros(16, 12)
    assert 'decoder.voxel_grid' not in to_official(ours, 'authors')[0]


@pytest.mark.parametrize(
    'keys',
    [
        ['img_backbone.conv1.weight', 'tpv_head.tpv_embedding_hw.weight'],
        ['img_backbone.conv1.weight', 'pts_bbox_head.volume_embedding.0.weight'],
        ['backbone.conv1.weight', 'neck.fpn_convs.0.conv.weight', 'bbox_head.conv_cls.weight'],
        ['backbone.conv1.weight', 'panoptic_head.pixel_decoder.mask_features.bias', 'pts_bbox_head.occ.0.weight'],
        ['encoder.model.backbone.conv1.weight'],
        ['conv1.weight', 'layer1.0.conv1.weight'],
    ],
)
def test_other_models_are_not_recognised(keys):
    assert identify(keys) is None
    with pytest.raises(ValueError, match='no weights of Symphonies and not those of MaskDINO'):
        to_project(keys)


def test_every_source_is_described():
    marks = ('decoder.scene_embed.weight', 'model.decoder.scene_embed.weight', 'view_encoder.scene_embed.weight')
    found = {identify([mark]) for mark in marks}
    assert found | {identify(['backbone.conv1.weight', 'panoptic_head.pixel_decoder.mask_features.bias'])} == set(SOURCES)


def test_partial_state_dicts_can_be_renamed():
    assert set(to_project.state_dict(dict.fromkeys(NAMES, torch.zeros(1)), 'authors')) == {
        value for value in NAMES.values() if value
    }
    with pytest.raises(KeyError, match='nobody'):
        to_project.state_dict({'nobody.knows': torch.ones(1)}, 'authors')


def test_nothing_is_adapted():
    assert adapt('occ_head.classifier.weight', torch.zeros(20, 2), torch.zeros(19, 2)) is None
