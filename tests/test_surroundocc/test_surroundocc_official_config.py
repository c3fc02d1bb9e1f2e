"""Translation of original model configs."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS

from projects.surroundocc.official_config import model_config_from_official

DIMS = [16, 32]


def official_config(**changes):
    """An original config of a small model with unequal sizes, in the option names of the original."""
    config = dict(
        type='SurroundOcc',
        use_grid_mask=True,
        use_semantic=True,
        img_backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=[2, 3], base_channels=8, stem_channels=8),
        img_neck=dict(type='FPN', in_channels=[32, 64], out_channels=16, num_outs=2),
        pts_bbox_head=dict(
            type='OccHead',
            volume_h=[4, 2],
            volume_w=[8, 4],
            volume_z=[2, 1],
            num_query=900,
            num_classes=5,
            conv_input=[32, 16, 16, 16, 16],
            conv_output=[16, 16, 16, 16, 16],
            out_indices=[0, 2, 4],
            upsample_strides=[1, 2, 1, 2, 1],
            embed_dims=DIMS,
            img_channels=[16, 16],
            use_semantic=True,
            transformer_template=dict(
                type='PerceptionTransformer',
                embed_dims=DIMS,
                num_cams=3,
                encoder=dict(
                    type='OccEncoder',
                    num_layers=[1, 2],
                    pc_range=[0, -6, -1, 16, 6, 3],
                    return_intermediate=False,
                    transformerlayers=dict(
                        type='OccLayer',
                        attn_cfgs=[
                            dict(
                                type='SpatialCrossAttention',
                                dropout=0.2,
                                num_cams=3,
                                deformable_attention=dict(
                                    type='MSDeformableAttention3D', embed_dims=DIMS, num_points=[2, 4], num_levels=1
                                ),
                                embed_dims=DIMS,
                            )
                        ],
                        feedforward_channels=[24, 48],
                        ffn_dropout=0.1,
                        embed_dims=DIMS,
                        conv_num=1,
                        operation_order=['cross_attn', 'norm', 'ffn', 'norm', 'conv'],
                    ),
                ),
            ),
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


@torch.no_grad()
def test_small_model_builds_and_runs():
    model = MODELS.build(model_config_from_official(official_config(), free_index=4, frame='ego')).eval()
    assert model.grid.shape == (16, 8, 4) and model.grid.frame == 'ego' and model.grid.free_index == 4
    assert model.grid.voxel_size == (1.0, 1.5, 1.0)
    assert model.view_encoder.see_padding and model.data_preprocessor.grid_mask is not None
    layer = model.view_encoder.transformer[1].encoder.layers[1]
    assert layer.attentions[0].dropout.p == 0.2 and len(layer.deblock) == 1
    deformable = layer.attentions[0].deformable_attention
    assert (deformable.num_heads, deformable.num_points) == (8, 4)
    assert layer.ffns[0].feedforward_channels == 48
    loss = model.occ_head.loss_occ
    assert (loss.ce_weight, loss.lovasz_weight, loss.sem_scal_weight, loss.geo_scal_weight) == (1, 0, 1, 1)
    assert loss.label_reduction == 'sparse_last' and loss.decay == 0.5
    cameras = dict(ref2img=torch.randn(1, 3, 4, 4), img_wh=torch.tensor([96.0, 64]).expand(1, 3, 2), input_wh=(96, 64))
    prediction = model.occ_head(model.view_encoder(model.extract_feat(torch.randn(1, 3, 3, 64, 96)), cameras))
    assert [v.shape[1:] for v in prediction.logits] == [(5, 4, 2, 1), (5, 8, 4, 2), (5, 16, 8, 4)]


def test_without_semantics():
    model = MODELS.build(model_config_from_official(official_config(pts_bbox_head__use_semantic=False)))
    assert model.occ_head.occ[0].out_channels == 1
    assert model.occ_head.loss_occ.binary and model.occ_head.loss_occ.sem_scal_weight == 0


def test_gaussrender_calls_the_head_head():
    config = official_config()
    config['head'] = config.pop('pts_bbox_head')
    assert model_config_from_official(config)['occ_head']['embed_dims'] == DIMS


def test_class_names():
    assert model_config_from_official(official_config(), class_names=list('abcde'))['grid']['class_names'] == tuple('abcde')
    with pytest.raises(ValueError, match='num_classes of the original config must be 4 for this model family, got 5'):
        model_config_from_official(official_config(), class_names=list('abcd'))


TEMPLATE = 'pts_bbox_head__transformer_template__encoder__transformerlayers'


@pytest.mark.parametrize(
    'path, value, text',
    [
        (f'{TEMPLATE}__operation_order', ['self_attn', 'norm'], 'operation_order'),
        (f'{TEMPLATE}__attn_cfgs__0__deformable_attention__num_levels', 2, 'deformable_attention.num_levels'),
        ('pts_bbox_head__conv_input', [32, 16, 16, 16, 32], 'conv_input'),
        ('pts_bbox_head__volume_w', [6, 4], 'volume_w, volume_h, volume_z'),
    ],
)
def test_other_architectures_are_refused(path, value, text):
    with pytest.raises(ValueError, match=f'{text} of the original config must be'):
        model_config_from_official(official_config(**{path: value}))
