"""Translation of original model configs."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from occ_batches import batch_of
from tpvformer_official_config import model_config_from_official

from projects.tpvformer.checkpoint import to_official, to_project


def official_config(**changes):
    """An original config of a small model with unequal sizes, in the option names of the original."""
    size = dict(tpv_h=4, tpv_w=6, tpv_z=2)
    pc_range = [0, -6, -1, 12, 6, 3]
    config = dict(
        type='BEVSegmentor',
        use_grid_mask=True,
        img_backbone=dict(
            type='ResNet',
            depth=18,
            num_stages=4,
            out_indices=[1, 2, 3],
            base_channels=8,
            stem_channels=8,
            norm_cfg=dict(type='BN2d', requires_grad=False),
            norm_eval=True,
        ),
        img_neck=dict(
            type='FPN', in_channels=[16, 32, 64], out_channels=16, start_level=0, add_extra_convs='on_output', num_outs=4
        ),
        head=dict(
            type='TPVFormerHead',
            **size,
            num_feature_levels=4,
            num_cams=3,
            embed_dims=16,
            positional_encoding=dict(type='LearnedPositionalEncoding', num_feats=8, row_num_embed=4, col_num_embed=6),
            encoder=dict(
                type='TPVFormerEncoder',
                **size,
                num_layers=1,
                pc_range=pc_range,
                num_points_in_pillar=[2, 4, 4],
                return_intermediate=False,
                transformerlayers=dict(
                    type='TPVFormerLayer',
                    attn_cfgs=[
                        dict(type='TPVCrossViewHybridAttention', embed_dims=16, num_heads=2, num_levels=1, num_points=3),
                        dict(
                            type='TPVImageCrossAttention',
                            num_cams=3,
                            embed_dims=16,
                            dropout=0.2,
                            deformable_attention=dict(
                                type='TPVMSDeformableAttention3D',
                                embed_dims=16,
                                num_heads=4,
                                num_points=[4, 8, 8],
                                num_z_anchors=[2, 4, 4],
                                num_levels=4,
                                **size,
                            ),
                            **size,
                        ),
                    ],
                    feedforward_channels=24,
                    ffn_dropout=0.1,
                    operation_order=['self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm'],
                ),
            ),
        ),
        aggregator=dict(
            type='TPVAggregator',
            **size,
            nbr_classes=5,
            occ_shape=[12, 8, 6],
            in_dims=16,
            hidden_dims=32,
            out_dims=16,
            scale_h=2,
            scale_w=2,
            scale_z=3,
        ),
    )
    config = copy.deepcopy(config)
    for path, value in changes.items():
        target = config
        *parents, last = path.split('__')
        for key in parents:
            target = target[int(key)] if key.isdigit() else target[key]
        target[last] = value
    return config


def test_small_model_builds_and_runs():
    model = MODELS.build(model_config_from_official(official_config(), free_index=4, frame='ego')).eval()
    assert model.grid.shape == (12, 8, 6) and model.grid.frame == 'ego' and model.grid.free_index == 4
    torch.testing.assert_close(torch.tensor(model.grid.voxel_size), torch.tensor([1.0, 1.5, 2 / 3]))
    layer = model.view_encoder.encoder.layers[0]
    assert layer.attentions[0].num_heads == 2 and layer.attentions[0].num_points == 3
    assert layer.attentions[1].dropout.p == 0.2
    inner = layer.attentions[1].deformable_attention
    assert inner.num_points == (4, 8, 8) and inner.num_anchors == (2, 4, 4)
    assert inner.floor_sampling_offset  # the default of the original
    with torch.no_grad():
        feats = model.extract_feat(torch.randn(1, 3, 3, 64, 96))
        cameras = dict(ref2img=torch.randn(1, 3, 4, 4), img_wh=torch.tensor([96.0, 64]).expand(1, 3, 2), input_wh=(96, 64))
        prediction = model.occ_head(model.view_encoder(feats, batch_of(cameras)))
    assert prediction.logits[0].shape == (1, 5, 12, 8, 6)


def test_real_number_of_cameras():
    config = model_config_from_official(official_config(), num_cams=1)
    assert config['view_encoder']['num_cams'] == 1


IMAGE = 'head__encoder__transformerlayers__attn_cfgs__1'
DEFORMABLE = f'{IMAGE}__deformable_attention'


@torch.no_grad()
@pytest.mark.parametrize(
    'changes, sizes',
    [
        (dict(head__num_cams=1, aggregator__nbr_classes=19), (12, 8, 6)),
        (dict(aggregator__scale_w=1, aggregator__scale_h=3, aggregator__scale_z=1), (6, 12, 2)),
        (dict(aggregator__hidden_dims=24, aggregator__out_dims=None), (12, 8, 6)),
        ({'head__num_feature_levels': 3, 'img_neck__num_outs': 3, f'{DEFORMABLE}__num_levels': 3}, (12, 8, 6)),
        (
            {
                'head__encoder__num_points_in_pillar': [2, 3, 5],
                f'{DEFORMABLE}__num_z_anchors': [2, 3, 5],
                f'{DEFORMABLE}__num_points': [4, 3, 10],
                f'{DEFORMABLE}__num_heads': 8,
            },
            (12, 8, 6),
        ),
        # tables larger than the plane
        (dict(head__positional_encoding__row_num_embed=9, head__positional_encoding__col_num_embed=7), (12, 8, 6)),
    ],
)
def test_other_sizes_build_and_run(changes, sizes):
    config = official_config(**changes)
    model = MODELS.build(model_config_from_official(config)).eval()
    official, _, unknown = to_official(model.state_dict())
    assert not unknown
    head, lifter = config['head'], config['aggregator']
    num_cams, num_classes = head['num_cams'], lifter['nbr_classes']
    assert official['head.cams_embeds'].shape == (num_cams, 16)
    assert official['head.level_embeds'].shape == (head['num_feature_levels'], 16)
    assert official['head.positional_encoding.row_embed.weight'].shape == (head['positional_encoding']['row_num_embed'], 8)
    assert official['aggregator.decoder.0.weight'].shape == (lifter['hidden_dims'], 16)
    assert official['aggregator.classifier.weight'].shape == (num_classes, 16)
    for plane, cells, anchors in zip(('hw', 'zh', 'wz'), (24, 8, 12), head['encoder']['num_points_in_pillar']):
        assert official[f'head.encoder.ref_3d_{plane}'].shape == (1, anchors, cells, 3)
    model.load_state_dict(to_project.state_dict(official, 'gaussrender'), strict=True)
    # a size that 32 does not divide
    sizes_wh = torch.tensor([101.0, 70]).expand(2, num_cams, 2)
    cameras = dict(ref2img=torch.randn(2, num_cams, 4, 4), img_wh=sizes_wh, input_wh=(101, 70))
    feats = model.extract_feat(torch.randn(2, num_cams, 3, 70, 101))
    prediction = model.occ_head(model.view_encoder(feats, batch_of(cameras)))
    assert prediction.logits[0].shape == (2, num_classes, *sizes)


def test_class_names():
    config = model_config_from_official(official_config(), class_names=list('abcde'))
    assert config['grid']['class_names'] == tuple('abcde')
    with pytest.raises(ValueError, match='nbr_classes of the original config must be 4 for this model family, got 5'):
        model_config_from_official(official_config(), class_names=list('abcd'))


@pytest.mark.parametrize(
    'path, value, text',
    [
        ('head__encoder__transformerlayers__operation_order', ['norm', 'self_attn'], 'operation_order'),
        ('head__encoder__transformerlayers__attn_cfgs__0__num_levels', 3, r'attn_cfgs\[0\].num_levels'),
        ('head__encoder__num_points_in_pillar', [4, 4, 4], 'num_z_anchors'),
    ],
)
def test_other_architectures_are_refused(path, value, text):
    with pytest.raises(ValueError, match=f'{text} of the original config must be'):
        model_config_from_official(official_config(**{path: value}))
