import pytest
from mmengine.config import Config

from projects.occ.engine.config_options import apply_cfg_options
from projects.occ.engine.errors import ConfigOptionError


@pytest.fixture
def cfg():
    grid = dict(shape=[4, 4, 2], voxel_size=0.5)
    pipeline = [dict(type='Load', to_float32=True), dict(type='Pack')]
    return Config(
        dict(
            grid=grid,
            batch=4,
            data_root='data/nuscenes/',
            pipeline=pipeline,
            model=dict(type='Net', grid=grid, head=dict(type='Head', loss_weight=1.0), aggregator=dict(type='Gauss')),
            train_dataloader=dict(
                batch_size=4, dataset=dict(type='Set', data_root='data/nuscenes/', grid=grid, pipeline=pipeline)
            ),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=2e-4), clip_grad=None),
            train_cfg=dict(max_epochs=24),
            resume=False,
        )
    )


def refused(cfg, key, value):
    before = cfg.pretty_text
    with pytest.raises(ConfigOptionError) as caught:
        apply_cfg_options(cfg, {key: value})
    assert cfg.pretty_text == before
    message = str(caught.value)
    assert message.startswith(f'--cfg-options {key}') and '\n' not in message
    return message


def test_existing_keys_are_merged(cfg):
    apply_cfg_options(
        cfg,
        {
            'model.head.loss_weight': 2,
            'train_dataloader.dataset.pipeline.0.to_float32': False,
            'optim_wrapper.optimizer.lr': 1e-3,
            'model.aggregator': None,
            'resume': True,
        },
    )
    assert cfg.model.head.loss_weight == 2
    assert cfg.train_dataloader.dataset.pipeline[0].to_float32 is False
    assert cfg.train_dataloader.dataset.pipeline[1].type == 'Pack'
    assert cfg.model.aggregator is None and cfg.resume is True and cfg.optim_wrapper.optimizer.lr == 1e-3


@pytest.mark.parametrize(
    ('key', 'nearest'),
    [
        ('model.hed.loss_weight', 'Nearest existing: model.head.loss_weight.'),
        ('model.head.los_weight', 'Nearest existing: model.head.loss_weight.'),
        ('modle', 'Nearest existing: model.'),
        ('optimizer.lr', 'Nearest existing: optim_wrapper.optimizer.lr.'),
        ('model.loss_weight', 'Nearest existing: model.head.loss_weight.'),
        ('train_dataloader.dataset.pipeline.7.type', 'train_dataloader.dataset.pipeline is a list of 2 elements, 0 to 1.'),
        ('train_cfg.zzz', 'train_cfg has the keys max_epochs.'),
        ('train_cfg.max_epochs.zzz', 'train_cfg.max_epochs is 24, not a dict.'),
    ],
)
def test_a_key_that_does_not_exist_stops_with_the_nearest(cfg, key, nearest):
    message = refused(cfg, key, 1)
    assert 'no such key' in message and '--allow-new-keys' in message
    assert nearest in message


def test_new_keys_on_request(cfg):
    apply_cfg_options(cfg, {'model.hed.loss_weight': 2}, allow_new_keys=True)
    assert cfg.model.hed.loss_weight == 2
    with pytest.raises(ConfigOptionError, match='cannot be merged'):
        apply_cfg_options(cfg, {'train_dataloader.dataset.pipeline.9.type': 'X'}, allow_new_keys=True)


def test_variables_of_the_file_come_too_late(cfg):
    message = refused(cfg, 'grid.voxel_size', 0.4)
    assert 'no effect' in message
    assert 'Set instead model.grid.voxel_size, train_dataloader.dataset.grid.voxel_size' in message
    assert 'train_dataloader.dataset.pipeline.0.type' in refused(cfg, 'pipeline.0.type', 'Other')
    assert 'train_dataloader.dataset.data_root' in refused(cfg, 'data_root', '/data')
    assert 'a config file that inherits' in refused(cfg, 'batch', 2)
    assert 'name them in the file' in refused(cfg, 'custom_imports.imports', 'x')


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [
        ('optim_wrapper.optimizer.lr', '1e-4x', 'expected a number (now 0.0002)'),
        ('train_cfg.max_epochs', True, 'expected a number'),
        ('resume', 'yes', 'expected True or False'),
        ('model.head', 3, 'expected a dict, one key at a time'),
        ('train_dataloader.dataset.pipeline', 'Load', 'expected a list of dicts'),
    ],
)
def test_values_that_cannot_be_meant(cfg, key, value, expected):
    assert expected in refused(cfg, key, value)
