import pytest
from mmdet.models import ResNet  # noqa: F401 - registers what is looked for
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.occ.engine.config_checks import check_config, unknown_type
from projects.occ.engine.errors import ConfigOptionError

GRID = dict(
    point_cloud_range=[0, 0, 0, 4, 4, 2], voxel_size=1, shape=[4, 4, 2], frame='ego', free_index=1, class_names=['car', 'free']
)


def config(**changes):
    return Config(
        dict(
            default_scope='mmdet3d',
            model=dict(grid=GRID),
            train_dataloader=dict(batch_size=1, num_workers=2, persistent_workers=True, dataset=dict(grid=GRID)),
            test_dataloader=dict(batch_size=1, num_workers=0, dataset=dict(type='RepeatDataset', dataset=dict(grid=GRID))),
            test_evaluator=[dict(type='OccupancyMetric', grid=GRID)],
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        )
        | changes
    )


def test_a_consistent_config_passes_and_stays():
    cfg = config()
    check_config(cfg)
    assert cfg.train_dataloader == config().train_dataloader
    check_config(Config(dict(train_dataloader=None)))


def test_data_can_be_loaded_without_workers_by_one_option():
    cfg = config(train_dataloader=dict(batch_size=2, num_workers=0, persistent_workers=True, prefetch_factor=4, dataset={}))
    check_config(cfg)
    assert cfg.train_dataloader == dict(batch_size=2, num_workers=0, persistent_workers=False, dataset={})


@pytest.mark.parametrize('size', [0, -1, 1.5])
def test_an_empty_batch(size):
    with pytest.raises(ConfigOptionError, match=rf'train_dataloader.batch_size must be a positive integer, got {size}'):
        check_config(config(train_dataloader=dict(batch_size=size, dataset={})))


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('train_dataloader.dataset.grid.free_index', 0, r'train_dataloader.dataset.grid differ \(free_index 1 against 0\)'),
        (
            'test_dataloader.dataset.dataset.grid.frame',
            'lidar',
            r'dataset.dataset.grid differ \(frame ego against lidar; ahead',
        ),
        ('test_evaluator.0.grid.ignore_index', 254, r'test_evaluator.0.grid differ \(ignore_index 255 against 254\)'),
        ('model.grid.class_names', ['cat', 'free'], r'model.grid and train_dataloader.*class_names \(.cat'),
    ],
)
def test_grids_that_differ(key, value, message):
    cfg = config()
    cfg.merge_from_dict({key: value})
    with pytest.raises(ConfigOptionError, match=message):
        check_config(cfg)


def test_equal_grids_in_other_words():
    cfg = config()
    cfg.merge_from_dict({'model.grid.voxel_size': [1.0, 1.0, 1.0], 'model.grid.ignore_index': 255})
    check_config(cfg)


def test_an_optimiser_that_does_not_exist():
    with pytest.raises(
        ConfigOptionError, match=r"optim_wrapper.optimizer.type: 'Adammm' is no registered optimizer; nearest: Adam"
    ):
        check_config(config(optim_wrapper=dict(optimizer=dict(type='Adammm'))))


def test_unknown_names_get_the_nearest_of_all_libraries():
    init_default_scope('mmdet3d')
    assert unknown_type('ResNett', MODELS).startswith("'ResNett' is no registered model; nearest: ResNet")
    assert unknown_type('Qwertz', MODELS).startswith("'Qwertz' is no registered model. A class of your own")
