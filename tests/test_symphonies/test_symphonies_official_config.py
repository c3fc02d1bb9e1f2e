"""Translation of original model settings."""

import pytest
import torch
from mmdet3d.registry import MODELS
from symphonies_official_config import model_config_from_official
from tiny_symphonies import build_batch, build_model, official_config

from projects.symphonies.checkpoint import to_official, to_project


def test_everything_reaches_the_model():
    config = official_config(frustum_size=5, num_queries=7, view_scales=[8, 64], voxel_size=[0.5, 0.5, 0.25])
    weights = [0.1, 0.2, 0.3, 0.4, 0.5]
    model = MODELS.build(model_config_from_official(config, list('abcde'), 2, 'ego', class_weights=weights))
    grid = model.grid
    assert (grid.shape, grid.voxel_size, grid.frame, grid.free_index) == ((16, 12, 16), (0.5, 0.5, 0.25), 'ego', 2)
    assert grid.point_cloud_range == (0, -3, -4, 8, 3, 0) and grid.class_names == tuple('abcde')
    encoder = model.view_encoder
    assert encoder.feat_levels == (1, 4) and encoder.query_embed.num_embeddings == 7 and len(encoder.layers) == 3
    assert encoder.cells.shape == (8, 6, 4)
    loss = model.occ_head.loss_occ
    assert loss.frustums == 5 and loss.class_weights == tuple(weights) and loss.aux_weight == 0.5
    terms = (loss.ce_weight, loss.sem_scal_weight, loss.geo_scal_weight, loss.frustum_weight, loss.lovasz_weight)
    assert terms == (1, 1, 1, 1, 0)
    layer = model.img_neck.encoder.layers[0]
    assert layer.self_attn.num_heads == 2 and layer.ffn.feedforward_channels == 16 and model.img_neck.num_levels == 4


def test_released_values_are_the_defaults():
    """Of the KITTI-360 model, as our own config has it."""
    config = dict(
        embed_dims=128,
        num_classes=19,
        num_layers=3,
        scene_size=[256, 256, 32],
        voxel_size=0.2,
        voxel_origin=[0, -25.6, -2],
    )
    ours = model_config_from_official(config)
    assert ours['img_neck']['in_channels'] == [256, 512, 1024, 2048] and ours['view_encoder']['feat_levels'] == [0, 1, 2]
    assert ours['view_encoder']['num_queries'] == 100 and ours['occ_head']['loss_occ']['frustums'] == 8


ENCODER = official_config()['encoder']


@torch.no_grad()
@pytest.mark.parametrize(
    'changes',
    [
        dict(volume_scale=1, scene_pos=dict(num_embeds=[16, 12, 2], squeeze_dims=[2, 2, 1])),
        dict(downsample_z=1, scene_pos=dict(num_embeds=[8, 6, 2], squeeze_dims=[2, 2, 1])),
        dict(downsample_z=4, scene_pos=dict(num_embeds=[8, 6, 1], squeeze_dims=[2, 1, 1])),
        dict(num_layers=4, num_classes=20, num_queries=3),
        dict(view_scales=[4, 8, 16, 32], encoder={**ENCODER, 'total_num_feature_levels': 3}),
        dict(view_scales=[8], encoder={**ENCODER, 'conv_dim': 24}),
        dict(embed_dims=8),
        dict(encoder={**ENCODER, 'depth': 50, 'conv_dim': 32, 'total_num_feature_levels': 5, 'enc_layers': 2}),
    ],
)
def test_other_sizes_build_and_run(changes):
    config = official_config(**changes)
    model = build_model(**changes)
    official, _, unknown = to_official(model.state_dict(), 'authors')
    assert not unknown
    x, y, z = config['scene_size']
    scale, z_scale, dims = config['volume_scale'], config['downsample_z'], config['embed_dims']
    assert official['decoder.scene_embed.weight'].shape == (x * y * z // scale**3 // z_scale, dims)
    assert ('decoder.cls_head.0.0.weight' in official, 'decoder.cls_head.1.up_bn.0.weight' in official) == (
        z_scale > 1,
        scale > 1,
    )
    tables = config['scene_pos']
    for axis, (size, factor) in enumerate(zip(tables['num_embeds'], tables['squeeze_dims'])):
        assert official[f'decoder.scene_pos.embeds.{axis}.weight'].shape == (size * factor, dims // 2)
    projected = 'encoder.out_projs.0.0.weight' in official
    assert projected == (config['encoder']['conv_dim'] != dims)
    decoder = 'encoder.model.panoptic_head.pixel_decoder.'
    levels, layers = (config['encoder'][key] for key in ('total_num_feature_levels', 'enc_layers'))
    assert official[f'{decoder}transformer.level_embed'].shape == (levels, config['encoder']['conv_dim'])
    assert f'{decoder}transformer.encoder.layers.{layers - 1}.norms.0.weight' in official
    model.load_state_dict(to_project.state_dict(official, 'authors'), strict=True)
    batch = build_batch(2)
    logits = model.encode_decode(batch).logits[-1]
    assert logits.shape == (2, config['num_classes'], x, y, z) and logits.isfinite().all()


@pytest.mark.parametrize(
    'changes, text',
    [
        (dict(view_scales=[2, 4]), r'view_scales of the original config must be strides among .*got \[2, 4\]'),
        (dict(encoder=dict(depth=18, base_channels=8, conv_dim=16)), 'encoder.conv_dim .* must be 8, the channels of stride 4'),
        (dict(scene_pos=dict(num_embeds=[8, 6, 2])), r'scene_pos.num_embeds .* must be \(8, 6, 1\)'),
        (dict(num_classes=4), 'num_classes of the original config must be 5 for this model family, got 4'),
    ],
)
def test_other_architectures_are_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        model_config_from_official(official_config(**changes), class_names=list('abcde'))
