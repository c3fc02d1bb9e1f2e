"""Translation of original model configs."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from occ_batches import batch_of
from surroundocc_official_config import model_config_from_official

from projects.surroundocc.checkpoint import to_official, to_project

DIMS = [16, 32]
TEMPLATE = 'pts_bbox_head__transformer_template__encoder__transformerlayers'


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
    prediction = model.occ_head(model.view_encoder(model.extract_feat(torch.randn(1, 3, 3, 64, 96)), batch_of(cameras)))
    assert [v.shape[1:] for v in prediction.logits] == [(5, 4, 2, 1), (5, 8, 4, 2), (5, 16, 8, 4)]


def test_without_semantics():
    model = MODELS.build(model_config_from_official(official_config(pts_bbox_head__use_semantic=False)))
    assert model.occ_head.occ[0].out_channels == 1
    assert model.occ_head.loss_occ.binary and model.occ_head.loss_occ.sem_scal_weight == 0


def test_without_semantics_the_number_of_classes_means_nothing():
    config = model_config_from_official(official_config(pts_bbox_head__use_semantic=False, pts_bbox_head__num_classes=1))
    assert config['grid']['class_names'] == ('class_0', 'class_1')
    assert MODELS.build(config).occ_head.occ[0].out_channels == 1


def test_real_number_of_cameras():
    # more embeddings than cameras, as in the single-camera models of GaussRender
    changes = {
        'pts_bbox_head__transformer_template__num_cams': 6,
        f'{TEMPLATE}__attn_cfgs__0__num_cams': 6,
    }
    encoder = model_config_from_official(official_config(**changes), num_cams=1)['view_encoder']
    assert (encoder['num_cams'], encoder['num_cam_embeds']) == (1, 6)
    changes[f'{TEMPLATE}__attn_cfgs__0__num_cams'] = 2
    encoder = model_config_from_official(official_config(**changes))['view_encoder']
    assert (encoder['num_cams'], encoder['num_cam_embeds']) == (2, 6)


DEFORMABLE = f'{TEMPLATE}__attn_cfgs__0__deformable_attention'


@torch.no_grad()
@pytest.mark.parametrize(
    'changes, sizes',
    [
        ({f'{DEFORMABLE}__num_heads': 4, f'{TEMPLATE}__conv_num': 2}, (16, 8, 4)),
        # one number for all levels
        (
            {
                f'{DEFORMABLE}__num_points': 3,
                f'{TEMPLATE}__feedforward_channels': 32,
                'pts_bbox_head__transformer_template__encoder__num_layers': 1,
                'pts_bbox_head__img_channels': 16,
            },
            (16, 8, 4),
        ),
        (dict(pts_bbox_head__volume_w=[4, 2], pts_bbox_head__volume_h=[8, 4], pts_bbox_head__volume_z=[4, 2]), (8, 16, 8)),
        # three levels, two of which come from the backbone
        (
            {
                'img_neck__num_outs': 3,
                'pts_bbox_head__volume_w': [8, 4, 2],
                'pts_bbox_head__volume_h': [8, 4, 2],
                'pts_bbox_head__volume_z': [4, 2, 1],
                'pts_bbox_head__embed_dims': [16, 32, 48],
                'pts_bbox_head__img_channels': [16, 16, 16],
                'pts_bbox_head__conv_input': [48, 32, 32, 16, 16, 16, 16],
                'pts_bbox_head__conv_output': [32, 32, 16, 16, 16, 16, 16],
                'pts_bbox_head__upsample_strides': [1, 2, 1, 2, 1, 2, 1],
                'pts_bbox_head__out_indices': [0, 2, 4, 6],
                'pts_bbox_head__transformer_template__encoder__num_layers': [1, 2, 1],
                f'{TEMPLATE}__feedforward_channels': [24, 32, 48],
                f'{DEFORMABLE}__num_points': [2, 4, 1],
            },
            (16, 16, 8),
        ),
    ],
)
def test_other_sizes_build_and_run(changes, sizes):
    config = official_config(**changes)
    model = MODELS.build(model_config_from_official(config)).eval()
    official, _, unknown = to_official(model.state_dict())
    assert not unknown
    head = config['pts_bbox_head']
    for level, dims in enumerate(head['embed_dims']):
        cells = head['volume_w'][level] * head['volume_h'][level] * head['volume_z'][level]
        assert official[f'pts_bbox_head.volume_embedding.{level}.weight'].shape == (cells, dims)
        assert official[f'pts_bbox_head.transformer.{level}.cams_embeds'].shape == (3, dims)
    for block, (given, made) in enumerate(zip(head['conv_input'], head['conv_output'], strict=True)):
        weight, stride = official[f'pts_bbox_head.deblocks.{block}.0.weight'], head['upsample_strides'][block]
        assert weight.shape == ((made, given, 3, 3, 3) if stride == 1 else (given, made, *(stride,) * 3))
    model.load_state_dict(to_project.state_dict(official, 'authors'), strict=True)
    # a size that 32 does not divide
    cameras = dict(ref2img=torch.randn(2, 3, 4, 4), img_wh=torch.tensor([101.0, 70]).expand(2, 3, 2), input_wh=(101, 70))
    feats = model.extract_feat(torch.randn(2, 3, 3, 70, 101))
    prediction = model.occ_head(model.view_encoder(feats, batch_of(cameras)))
    assert prediction.logits[-1].shape == (2, 5, *sizes)


def test_gaussrender_calls_the_head_head():
    config = official_config()
    config['head'] = config.pop('pts_bbox_head')
    assert model_config_from_official(config)['occ_head']['embed_dims'] == DIMS


def test_class_names():
    assert model_config_from_official(official_config(), class_names=list('abcde'))['grid']['class_names'] == tuple('abcde')
    with pytest.raises(ValueError, match='num_classes of the original config must be 4 for this model family, got 5'):
        model_config_from_official(official_config(), class_names=list('abcd'))


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
