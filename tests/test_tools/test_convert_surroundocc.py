"""The converter on SurroundOcc: round trips, official sources, refusals."""

import importlib.util

import pytest
import torch

CONFIG = """
default_scope = 'mmdet3d'
custom_imports = dict(imports=['projects.occ.models', 'projects.surroundocc', 'projects.gaussrender.aggregator'])
grid = dict(
    point_cloud_range=[-4, -4, -1, 4, 4, 3], voxel_size=1.0, shape=[8, 8, 4], frame='lidar', free_index=0,
    class_names=[f'class_{i}' for i in range(17)])
model = dict(
    type='OccSegmentor',
    grid=grid,
    img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=4, out_indices=(2, 3)),
    img_neck=dict(type='mmdet.FPN', in_channels=[16, 32], out_channels=8, num_outs=2),
    view_encoder=dict(
        type='SurroundOccViewEncoder', scales=(2, 4), in_channels=8, embed_dims=16, num_layers=1, num_cams=NUM_CAMS,
        cross_attn=dict(num_points=2)),
    occ_head=dict(
        type='SurroundOccHead', scales=(2, 4), embed_dims=(16, 16), channels=(16,) * 5, strides=(1, 2, 1, 2, 1),
        out_indices=(0, 2, 4), loss_occ=dict(type='OccupancyLoss')),
    AGGREGATOR
)
"""
AGGREGATOR = "aggregator=dict(type='GaussRenderAggregator', gaussians=dict(feat_channels=16)),"


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('convert_checkpoint', repo_root / 'tools' / 'convert_checkpoint.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('configs')
    paths = {}
    for name, aggregator, num_cams in (('baseline', '', 6), ('rendered', AGGREGATOR, 6), ('one_camera', '', 1)):
        paths[name] = str(folder / f'{name}.py')
        text = CONFIG.replace('AGGREGATOR', aggregator).replace('NUM_CAMS', str(num_cams))
        (folder / f'{name}.py').write_text(text)
    return paths


def official_file(tool, config, source, path):
    """Random official weights that fit a config, layers that never run included."""
    from projects.surroundocc.checkpoint import to_official

    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in to_official(tool.model_weights(config), source)[0].items()
    }
    torch.save(dict(meta=dict(epoch=24), state_dict=weights, optimizer={}), path)
    return weights


def load(path):
    return torch.load(path, weights_only=True)['state_dict']


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


@pytest.mark.parametrize('source, config', [('authors', 'baseline'), ('gaussrender', 'rendered')])
def test_round_trip_is_bit_for_bit(tool, configs, tmp_path, capsys, source, config):
    official, ours, back = (str(tmp_path / name) for name in ('official.pth', 'ours.pth', 'back.pth'))
    weights = official_file(tool, configs[config], source, official)
    assert tool.main(['surroundocc', official, ours, '--config', configs[config]]) == 0
    report = capsys.readouterr().out
    assert 'nothing differs' in report and report.count('left out') == 4  # two unused layers, weight and bias
    model = tool.model_weights(configs[config])
    assert {key for key in model if not key.endswith('_extra_state')} == load(ours).keys()
    assert tool.main(['surroundocc', ours, back, '--reverse', '--config', configs[config]]) == 0
    assert_same_bits(weights, load(back))


def test_weights_with_and_without_rendering_interchange(tool, configs, tmp_path, capsys):
    official = str(tmp_path / 'official.pth')
    official_file(tool, configs['baseline'], 'authors', official)
    assert tool.main(['surroundocc', official, str(tmp_path / 'a.pth'), '--config', configs['rendered']]) == 0
    assert 'not in file  aggregator.gaussians.mlp_coarse.0.weight' in capsys.readouterr().out


def test_single_camera_model(tool, configs, tmp_path, capsys):
    official, ours, back = (str(tmp_path / name) for name in ('official.pth', 'ours.pth', 'back.pth'))
    weights = official_file(tool, configs['baseline'], 'authors', official)
    assert tool.main(['surroundocc', official, ours, '--config', configs['one_camera']]) == 0
    assert 'adapted      pts_bbox_head.transformer.0.cams_embeds' in capsys.readouterr().out
    table = load(ours)['view_encoder.transformer.0.cams_embeds']
    assert torch.equal(table, weights['pts_bbox_head.transformer.0.cams_embeds'][:1])
    assert tool.main(['surroundocc', ours, back, '--reverse']) == 0
    assert_same_bits(weights, load(back))


def test_image_network_gives_its_backbone_only(tool, configs, tmp_path, capsys):
    """Its neck has another width."""
    weights = {
        key.replace('img_backbone.', 'backbone.'): value
        for key, value in tool.model_weights(configs['baseline']).items()
        if key.startswith('img_backbone.')
    }
    weights.update({'neck.lateral_convs.0.conv.bias': torch.ones(5), 'bbox_head.conv_cls.weight': torch.ones(3)})
    torch.save(dict(state_dict=weights), tmp_path / 'fcos3d.pth')
    ours = tmp_path / 'ours.pth'
    assert tool.main(['surroundocc', str(tmp_path / 'fcos3d.pth'), str(ours), '--config', configs['baseline']]) == 0
    assert 'left out     neck.lateral_convs.0.conv.bias' in capsys.readouterr().out
    assert load(ours).keys() == {key for key in tool.model_weights(configs['baseline']) if key.startswith('img_backbone.')}


def test_another_number_of_classes_is_refused(tool, configs, tmp_path, capsys):
    official = tmp_path / 'official.pth'
    weights = official_file(tool, configs['baseline'], 'authors', official)
    weights['pts_bbox_head.occ.0.weight'] = torch.zeros(18, 16, 1, 1, 1)
    torch.save(dict(state_dict=weights), official)
    assert tool.main(['surroundocc', str(official), str(tmp_path / 'ours.pth'), '--config', configs['baseline']]) == 1
    message = capsys.readouterr().err
    assert 'nothing was written' in message and 'occ_head.occ.0.weight (18, 16, 1, 1, 1)' in message
    assert not (tmp_path / 'ours.pth').exists()


def test_checkpoints_of_other_families(tool, configs, tmp_path, capsys):
    torch.save({'tpv_head.tpv_embedding_hw.weight': torch.ones(1)}, tmp_path / 'tpv.pth')
    assert tool.main(['surroundocc', str(tmp_path / 'tpv.pth'), str(tmp_path / 'out.pth')]) == 1
    message = capsys.readouterr().err
    assert 'no weights of SurroundOcc' in message and 'it looks like a checkpoint of tpvformer' in message
    official_file(tool, configs['baseline'], 'authors', tmp_path / 'official.pth')
    assert tool.main(['tpvformer', str(tmp_path / 'official.pth'), str(tmp_path / 'out.pth')]) == 1
    assert 'it looks like a checkpoint of surroundocc: release of the SurroundOcc authors' in capsys.readouterr().err
