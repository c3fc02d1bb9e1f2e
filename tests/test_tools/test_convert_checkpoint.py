"""The converter: round trips, reports, refusals, and files that are complete or absent."""

import argparse
import importlib.util

import pytest
import torch

CONFIG = """
default_scope = 'mmdet3d'
custom_imports = dict(imports=['projects.occ.models', 'projects.tpvformer', 'projects.gaussrender.aggregator'])
grid = dict(
    point_cloud_range=[-4, -4, -1, 4, 4, 3], voxel_size=1.0, shape=[8, 8, 4], frame='ego', free_index=17,
    class_names=[f'class_{i}' for i in range(18)])
model = dict(
    type='OccSegmentor',
    grid=grid,
    img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=4, out_indices=(2, 3)),
    img_neck=dict(type='mmdet.FPN', in_channels=[16, 32], out_channels=8, num_outs=2),
    view_encoder=dict(
        type='TPVFormerViewEncoder', embed_dims=8, num_cams=NUM_CAMS, num_levels=2, num_layers=1, num_anchors=(2, 2, 2),
        self_attn=dict(num_heads=2), cross_attn=dict(num_heads=2, num_points=(2, 2, 2))),
    occ_head=dict(
        type='TPVFormerOccHead', in_dims=8, hidden_dims=8, out_dims=8, loss_occ=dict(type='OccupancyLoss')),
    AGGREGATOR
)
"""
AGGREGATOR = "aggregator=dict(type='GaussRenderAggregator', gaussians=dict(feat_channels=8)),"


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('convert_checkpoint', repo_root / 'tools' / 'convert_checkpoint.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_config(folder, aggregator=True, num_cams=2):
    path = folder / f'model_{aggregator}_{num_cams}.py'
    path.write_text(CONFIG.replace('AGGREGATOR', AGGREGATOR if aggregator else '').replace('NUM_CAMS', str(num_cams)))
    return str(path)


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('configs')
    return {name: write_config(folder, name == 'rendered') for name in ('rendered', 'baseline')}


def official_weights(tool, config, **extra):
    """Random official weights that fit a config."""
    from projects.tpvformer.checkpoint import to_official

    generator = torch.Generator().manual_seed(0)
    state = {
        key: value if value.dtype == torch.int64 or 'ref_' in key else torch.randn(value.shape, generator=generator)
        for key, value in tool.model_weights(config).items()
    }
    return {**to_official(state)[0], **extra}


@pytest.fixture(scope='module')
def official(tool, configs, tmp_path_factory):
    path = tmp_path_factory.mktemp('official') / 'official.pth'
    content = dict(optimizer={}, scheduler={}, epoch=3, global_iter=9)
    torch.save(dict(content, state_dict=official_weights(tool, configs['rendered'])), path)
    return str(path)


def load(path):
    return torch.load(path, weights_only=True)


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


def test_round_trip_is_bit_for_bit(tool, official, configs, tmp_path, capsys):
    ours, back = str(tmp_path / 'ours.pth'), str(tmp_path / 'back.pth')
    assert tool.main(['tpvformer', official, ours, '--config', configs['rendered']]) == 0
    report = capsys.readouterr().out
    assert tool.main(['tpvformer', ours, back, '--reverse', '--config', configs['rendered']]) == 0
    before, after = load(official)['state_dict'], load(back)['state_dict']
    assert_same_bits(before, after)
    assert 'GaussRender release' in report and 'nothing differs' in report
    lines = report.splitlines()
    for key in before:
        status = 'left out' if 'bg_color' in key else 'loaded'
        assert any(line.startswith(status) and f' {key} ' in f'{line} ' for line in lines), key
    assert 'head.level_embeds -> view_encoder.level_embeds (2, 8)' in report


def test_converted_weights_load_strictly(tool, official, configs, tmp_path):
    ours = tmp_path / 'ours.pth'
    tool.main(['tpvformer', official, str(ours), '--summary'])
    state = load(ours)['state_dict']
    model = tool.model_weights(configs['rendered'])
    assert {k for k in model if not k.endswith('_extra_state')} == state.keys()
    assert torch.equal(state['occ_head.classifier.weight'], load(official)['state_dict']['aggregator.classifier.weight'])


def test_weights_with_and_without_rendering_interchange(tool, official, configs, tmp_path, capsys):
    assert tool.main(['tpvformer', official, str(tmp_path / 'a.pth'), '--config', configs['baseline']]) == 0
    assert 'not in model aggregator.renderer_prep.decoder.mlp_coarse.0.weight' in capsys.readouterr().out
    plain = tmp_path / 'plain.pth'
    torch.save({k: v for k, v in load(official)['state_dict'].items() if 'renderer' not in k}, plain)
    assert tool.main(['tpvformer', str(plain), str(tmp_path / 'b.pth'), '--config', configs['rendered']]) == 0
    assert 'not in file  aggregator.gaussians.mlp_coarse.0.weight' in capsys.readouterr().out


@pytest.mark.parametrize(
    'change, line, message',
    [
        (dict(drop='head.level_embeds'), 'missing      view_encoder.level_embeds', 'only in the model: view_encoder'),
        (dict(drop='aggregator.renderer_prep.decoder.mlp_coarse.2.bias'), 'missing      aggregator', 'only in the model'),
        (dict(add=('head.extra.weight', 3)), 'unexpected   head.extra.weight', 'only in the checkpoint: view_encoder'),
        (dict(add=('nobody.knows', 3)), 'unexpected   nobody.knows (3,)', "1 unknown keys, the first is 'nobody.knows'"),
        (dict(add=('head.level_embeds', 5)), 'shape        head.level_embeds', 'other shape: view_encoder.level_embeds (5,)'),
    ],
)
def test_whatever_does_not_fit_is_reported_and_nothing_is_written(
    tool, official, configs, tmp_path, capsys, change, line, message
):
    weights = load(official)['state_dict']
    if 'drop' in change:
        del weights[change['drop']]
    else:
        weights[change['add'][0]] = torch.zeros(change['add'][1])
    torch.save(dict(state_dict=weights), tmp_path / 'in.pth')
    arguments = ['tpvformer', str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth'), '--config', configs['rendered']]
    assert tool.main(arguments) == 1
    captured = capsys.readouterr()
    assert line in captured.out
    assert captured.err.startswith('error: nothing was written, because not every key fits') and message in captured.err
    assert captured.err.count('\n') == 1
    assert [p.name for p in tmp_path.iterdir()] == ['in.pth']
    assert tool.main([*arguments, '--no-strict']) == 0
    fitting = load(tmp_path / 'out.pth')['state_dict']
    model = tool.model_weights(configs['rendered'])
    assert all(model[key].shape == value.shape for key, value in fitting.items())


def test_pretrained_image_network(tool, official, configs, tmp_path, capsys):
    weights = {
        'module.' + key.replace('img_backbone.', 'backbone.').replace('img_neck.', 'neck.'): value
        for key, value in load(official)['state_dict'].items()
        if key.startswith('img_')
    }
    weights['module.bbox_head.conv_cls.weight'] = torch.ones(3)
    torch.save(dict(state_dict=weights, meta=dict(epoch=12)), tmp_path / 'fcos3d.pth')
    out, back = tmp_path / 'out.pth', tmp_path / 'back.pth'
    assert tool.main(['tpvformer', str(tmp_path / 'fcos3d.pth'), str(out), '--config', configs['rendered']]) == 0
    report = capsys.readouterr().out
    assert 'left out     module.bbox_head.conv_cls.weight' in report and 'nothing differs' in report
    state = load(out)['state_dict']
    assert state.keys() == {k for k in tool.model_weights(configs['rendered']) if k.startswith('img_')}
    assert tool.main(['tpvformer', str(out), str(back), '--reverse']) == 0
    assert {'img_backbone.conv1.weight', 'module.bbox_head.conv_cls.weight'} <= load(back)['state_dict'].keys()


def test_single_camera_model(tool, official, tmp_path, capsys):
    config = write_config(tmp_path, num_cams=1)
    out, back = str(tmp_path / 'out.pth'), str(tmp_path / 'back.pth')
    assert tool.main(['tpvformer', official, out, '--config', config]) == 0
    assert 'adapted      head.cams_embeds -> view_encoder.cams_embeds (2, 8), the model has (1, 8)' in capsys.readouterr().out
    before = load(official)['state_dict']
    assert torch.equal(load(out)['state_dict']['view_encoder.cams_embeds'], before['head.cams_embeds'][:1])
    assert tool.main(['tpvformer', out, back, '--reverse']) == 0
    assert_same_bits(before, load(back)['state_dict'])


def refuse(tool, capsys, *arguments):
    assert tool.main(['tpvformer', *map(str, arguments)]) == 1
    message = capsys.readouterr().err
    assert message.startswith('error: ') and message.count('\n') == 1
    return message


def test_refusals_are_one_sentence(tool, official, tmp_path, capsys):
    out = tmp_path / 'out.pth'
    other = tmp_path / 'other.pth'
    torch.save(
        dict(state_dict={'img_backbone.conv1.weight': torch.ones(1), 'pts_bbox_head.deblocks.0.0.weight': torch.ones(1)}), other
    )
    message = refuse(tool, capsys, other, out)
    assert 'cannot be converted as tpvformer: these are no weights of TPVFormer' in message
    assert "its first key is 'img_backbone.conv1.weight'" in message

    later = tmp_path / 'later.pth'
    torch.save({'encoder.layers.0.attentions.0.value_proj.0.weight': torch.ones(1)}, later)
    assert 'tpvformer10' in refuse(tool, capsys, later, out)

    assert 'so there is nothing to reverse' in refuse(tool, capsys, official, out, '--reverse')
    ours = tmp_path / 'ours.pth'
    tool.main(['tpvformer', official, str(ours), '--summary'])
    assert 'already has the names of this code base' in refuse(tool, capsys, ours, tmp_path / 'again.pth')

    assert 'does not exist' in refuse(tool, capsys, tmp_path / 'nothing.pth', out)
    torch.save([1, 2], tmp_path / 'list.pth')
    assert 'holds no weights' in refuse(tool, capsys, tmp_path / 'list.pth', out)
    assert '--config' in refuse(tool, capsys, official, out, '--config', tmp_path / 'no.py')

    twice = {'head.tpv_embedding_hw.weight': torch.ones(2), 'module.head.tpv_embedding_hw.weight': torch.zeros(2)}
    torch.save(twice, tmp_path / 'twice.pth')
    assert 'holds two different tensors' in refuse(tool, capsys, tmp_path / 'twice.pth', out)
    assert not out.exists()


def test_python_objects_are_not_loaded(tool, tmp_path, capsys):
    path = tmp_path / 'objects.pth'
    torch.save(dict(state_dict={'head.tpv_embedding_hw.weight': torch.ones(1)}, extra=argparse.Namespace()), path)
    assert '--trust-checkpoint' in refuse(tool, capsys, path, tmp_path / 'out.pth')
    assert tool.main(['tpvformer', str(path), str(tmp_path / 'out.pth'), '--trust-checkpoint']) == 0


def test_a_failed_write_leaves_the_old_file(tool, official, tmp_path, monkeypatch):
    out = tmp_path / 'out.pth'
    out.write_bytes(b'old')

    def half(content, file):
        file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(tool.torch, 'save', half)
    with pytest.raises(OSError, match='disk full'):
        tool.main(['tpvformer', official, str(out), '--summary'])
    assert out.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == ['out.pth']
