"""Presets, grids and the messages for settings that do not fit together."""

import json

import pytest

from projects.occ.structures import VoxelGrid
from projects.streets import PRESETS, CameraSettings, build_config


def test_full_preset_has_the_grids_of_the_benchmarks():
    grids = build_config(('occ3d', 'surroundocc'), preset='full').grids
    assert grids['occ3d'].shape == (200, 200, 16) and grids['occ3d'].voxel_size == (0.4,) * 3
    assert grids['occ3d'].free_index == 17 and grids['occ3d'].frame == 'ego' and grids['occ3d'].num_classes == 18
    assert grids['surroundocc'].point_cloud_range == (-50, -50, -5, 50, 50, 3) and grids['surroundocc'].shape == (200, 200, 16)
    assert grids['surroundocc'].free_index == 0 and grids['surroundocc'].frame == 'lidar'
    assert grids['occ3d'].class_names[1:17] == grids['surroundocc'].class_names[1:]


@pytest.mark.parametrize('preset', PRESETS)
def test_grid_in_the_description_builds_the_same_grid(preset):
    config = build_config(('occ3d', 'surroundocc'), preset=preset)
    described = json.loads(json.dumps(config.to_dict()))['grids']
    assert {name: VoxelGrid.build(grid) for name, grid in described.items()} == config.grids


def test_own_range_and_voxel_size():
    config = build_config(('occ3d', 'surroundocc'), voxel_size=0.5, point_cloud_range=(-10, -8, -1, 10, 8, 3))
    assert config.grids['occ3d'].shape == (40, 32, 8) == config.grids['surroundocc'].shape
    assert config.grids['surroundocc'].lower == pytest.approx((-10, -8, -2.8))
    assert config.world_voxel <= 0.25


def test_hash_depends_on_content_only():
    config = build_config(('occ3d',))
    assert config.hash() == build_config(('occ3d',)).hash()
    others = [
        build_config(('occ3d',), seed=1),
        build_config(('surroundocc',)),
        build_config(('occ3d',), image_size=(100, 56)),
        build_config(('occ3d',), camera=CameraSettings(noise=0.0)),
    ]
    assert len({config.hash(), *(other.hash() for other in others)}) == 5


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(preset='huge'), "preset must be one of .*'tiny'.* got 'huge'"),
        (dict(formats=('kitti',)), "formats must be among .*'occ3d'.*got 'kitti'"),
        (dict(voxel_size=0.7), 'not a whole number of voxels of 0.7 m .*--voxel-size'),
        (dict(point_cloud_range=(0, 0, 0, 1)), '--range needs six numbers'),
        (dict(voxel_size=-1.0), '--voxel-size must be positive, got -1'),
        (dict(frames=0), '--frames must be at least 1, got 0'),
        (dict(scenes_train=0, scenes_val=0), 'at least one in total'),
        (dict(image_size=(8, 8)), '--image-size must be WIDTHxHEIGHT with at least 16 pixels'),
        (dict(seed=-1), '--seed must be >= 0, got -1'),
        (dict(view_distance=5.0), 'view distance of 5.0 m does not cover the label range of 16.0 m'),
        (dict(voxel_size=0.05), 'need too much memory; choose a larger --voxel-size'),
        (dict(frames=4000), '4000 frames need too much memory; .* fewer --frames'),
    ],
)
def test_bad_settings_give_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_config(**{'formats': ('occ3d',), **arguments})


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(light='night'), "camera.light must be 'day'.* got 'night'"),
        (dict(noise=-1.0), 'noise and exposure_jitter must be >= 0'),
        (dict(samples=0), 'camera.samples must lie in 1..16'),
    ],
)
def test_bad_camera_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        CameraSettings(**arguments)
