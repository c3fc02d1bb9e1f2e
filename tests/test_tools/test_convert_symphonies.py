"""The converter on Symphonies: round trips, pretrained MaskDINO, and every pair of families told apart."""

import importlib.util
import itertools
import json

import pytest
import torch

CONFIG = """
default_scope = 'mmdet3d'
custom_imports = dict(imports=['projects.occ.models', 'projects.symphonies', 'projects.gaussrender.aggregator'])
scene = dict(volume_scale=2, downsample_z=2, embed_dims=24)
model = dict(
    type='OccSegmentor',
    grid=dict(
        point_cloud_range=[0.0, -3.0, -2.25, 8.0, 3.0, 1.75], voxel_size=0.25, shape=[32, 24, 16], frame='lidar', free_index=0,
        class_names=[f'class_{i}' for i in range(CLASSES)]),
    img_backbone=dict(type='mmdet.ResNet', depth=50, base_channels=8, stem_channels=8, num_stages=4, out_indices=(0, 1, 2, 3)),
    img_neck=dict(
        type='MaskDINOPixelDecoder', in_channels=[32, 64, 128, 256], embed_dims=32, num_layers=2, feedforward_channels=96),
    view_encoder=dict(type='SymphoniesViewEncoder', in_channels=32, num_queries=10, **scene),
    occ_head=dict(type='SymphoniesHead', loss_occ=dict(type='OccupancyLoss'), **scene),
    AGGREGATOR
)
"""
AGGREGATOR = "aggregator=dict(type='GaussRenderAggregator', gaussians=dict(feat_channels=24)),"
MARKS = {
    'tpvformer': ['img_backbone.conv1.weight', 'tpv_head.tpv_embedding_hw.weight'],
    'surroundocc': ['img_backbone.conv1.weight', 'pts_bbox_head.volume_embedding.0.weight'],
    'symphonies': ['model.encoder.model.backbone.conv1.weight', 'model.decoder.scene_embed.weight'],
}
NAMES = {'tpvformer': 'TPVFormer', 'surroundocc': 'SurroundOcc', 'symphonies': 'Symphonies'}


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('convert_checkpoint', repo_root / 'tools' / 'convert_checkpoint.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """Models of the size of the parity case."""
    folder = tmp_path_factory.mktemp('configs')
    paths = {}
    for name, aggregator, classes in (('baseline', '', 19), ('rendered', AGGREGATOR, 19), ('kitti', '', 20)):
        paths[name] = str(folder / f'{name}.py')
        (folder / f'{name}.py').write_text(CONFIG.replace('AGGREGATOR', aggregator).replace('CLASSES', str(classes)))
    return paths


@pytest.fixture(scope='module')
def official(golden_dir):
    """Weights of the original implementation, under the names that its network has."""
    return torch.load(golden_dir / 'symphonies_small.pt', weights_only=True)['state_dict']


def lightning(weights):
    return {f'model.{key}': value for key, value in weights.items()}


def load(path):
    return torch.load(path, weights_only=True)['state_dict']


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


@pytest.mark.parametrize('source', ['lightning', 'authors'])
def test_round_trip_is_bit_for_bit(tool, configs, official, tmp_path, capsys, source):
    given, ours, back = (str(tmp_path / name) for name in ('official.ckpt', 'ours.pth', 'back.ckpt'))
    weights = lightning(official) if source == 'lightning' else official
    torch.save(dict(state_dict=weights, epoch=26, hyper_parameters=dict(lr=2e-4)), given)
    assert tool.main(['symphonies', given, ours, '--config', configs['baseline']]) == 0
    report = capsys.readouterr().out
    assert 'nothing differs' in report and report.count('left out') == 3 and f'{len(weights)} entries' in report
    assert tool.model_weights(configs['baseline']).keys() == load(ours).keys()
    assert tool.main(['symphonies', ours, back, '--reverse', '--config', configs['baseline']]) == 0
    assert_same_bits(weights, load(back))


def test_weights_with_and_without_rendering_interchange(tool, configs, official, tmp_path, capsys):
    torch.save(dict(state_dict=lightning(official)), tmp_path / 'official.ckpt')
    assert (
        tool.main(['symphonies', str(tmp_path / 'official.ckpt'), str(tmp_path / 'a.pth'), '--config', configs['rendered']])
        == 0
    )
    assert 'not in file  aggregator.gaussians.mlp_coarse.0.weight' in capsys.readouterr().out
    model = tool.model_weights(configs['rendered'])
    torch.save(dict(state_dict=model), tmp_path / 'rendered.pth')
    assert tool.main(['symphonies', str(tmp_path / 'rendered.pth'), str(tmp_path / 'b.ckpt'), '--reverse']) == 0
    # trained here: the buffers that the original stores are computed
    assert load(tmp_path / 'b.ckpt').keys() == lightning(official).keys()


def test_maskdino(tool, configs, official, tmp_path, capsys):
    mark = 'encoder.model.'
    weights = {key.removeprefix(mark): value for key, value in official.items() if key.startswith(mark)}
    weights['panoptic_head.predictor.query_feat.weight'] = torch.ones(3, 2)
    torch.save(weights, tmp_path / 'maskdino.pth')
    ours, back = tmp_path / 'ours.pth', tmp_path / 'back.pth'
    assert tool.main(['symphonies', str(tmp_path / 'maskdino.pth'), str(ours), '--config', configs['baseline']]) == 0
    report = capsys.readouterr().out
    assert 'MaskDINO' in report and 'nothing differs' in report
    assert 'left out     panoptic_head.predictor.query_feat.weight' in report
    model = tool.model_weights(configs['baseline'])
    assert load(ours).keys() == {key for key in model if key.startswith(('img_backbone.', 'img_neck.'))}
    key = 'panoptic_head.pixel_decoder.transformer.level_embed'
    assert torch.equal(load(ours)['img_neck.level_embed'], weights[key])
    assert tool.main(['symphonies', str(ours), str(back), '--reverse']) == 0
    assert_same_bits(weights, load(back))


def test_another_benchmark_is_refused(tool, configs, official, tmp_path, capsys):
    torch.save(dict(state_dict=lightning(official)), tmp_path / 'official.ckpt')
    arguments = ['symphonies', str(tmp_path / 'official.ckpt'), str(tmp_path / 'ours.pth'), '--config', configs['kitti']]
    assert tool.main(arguments) == 1
    message = capsys.readouterr().err
    assert 'nothing was written' in message and 'occ_head.classifier.weight (19, 24, 1, 1, 1) in the checkpoint' in message
    assert not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize('right, wrong', list(itertools.permutations(MARKS, 2)))
def test_every_family_refuses_the_others(tool, tmp_path, capsys, right, wrong):
    torch.save({key: torch.ones(1) for key in MARKS[right]}, tmp_path / 'theirs.pth')
    out = tmp_path / 'out.pth'
    assert tool.main([wrong, str(tmp_path / 'theirs.pth'), str(out)]) == 1
    message = capsys.readouterr().err
    assert f'these are no weights of {NAMES[wrong]}' in message and message.count('\n') == 1
    assert f'it looks like a checkpoint of {right}: ' in message
    # and under our names
    assert tool.main([right, str(tmp_path / 'theirs.pth'), str(tmp_path / 'ours.pth'), '--summary']) == 0
    capsys.readouterr()
    for options in ([], ['--reverse']):
        assert tool.main([wrong, str(tmp_path / 'ours.pth'), str(out), *options]) == 1
        message = capsys.readouterr().err
        assert f'it looks like a checkpoint of {right}: weights of this code base' in message and message.count('\n') == 1
    assert not out.exists()


@pytest.mark.parametrize('wrong', ['tpvformer', 'surroundocc'])
def test_maskdino_is_for_symphonies_alone(tool, tmp_path, capsys, wrong):
    keys = ['backbone.conv1.weight', 'panoptic_head.pixel_decoder.mask_features.bias']
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / 'maskdino.pth')
    assert tool.main([wrong, str(tmp_path / 'maskdino.pth'), str(tmp_path / 'out.pth')]) == 1
    assert f'these are no weights of {NAMES[wrong]}' in capsys.readouterr().err


def test_fcos3d_is_not_for_symphonies(tool, tmp_path, capsys):
    keys = ['backbone.conv1.weight', 'neck.fpn_convs.0.conv.weight', 'bbox_head.conv_cls.weight']
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / 'fcos3d.pth')
    assert tool.main(['symphonies', str(tmp_path / 'fcos3d.pth'), str(tmp_path / 'out.pth')]) == 1
    assert 'no weights of Symphonies and not those of MaskDINO' in capsys.readouterr().err


def test_all_keys_of_the_release(tool, shared_root, tmp_path, capsys):
    reference = json.loads((shared_root / 'reference' / 'symphonies_keys.json').read_text())
    weights = {f'model.{key}': torch.ones(1) for key in reference['state_dict']}
    torch.save(dict(state_dict=weights), tmp_path / 'release.ckpt')
    ours, back = str(tmp_path / 'ours.pth'), str(tmp_path / 'back.ckpt')
    assert tool.main(['symphonies', str(tmp_path / 'release.ckpt'), ours, '--summary']) == 0
    assert '691 entries, 688 kept, 3 without counterpart, 0 unknown' in capsys.readouterr().out
    assert tool.main(['symphonies', ours, back, '--reverse', '--summary']) == 0
    assert_same_bits(weights, load(back))
