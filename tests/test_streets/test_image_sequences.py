"""Images between the key frames and class maps of images, in the layout of nuScenes and through the real readers."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from projects.occ.datasets import Occ3DNuScenesDataset
from projects.occ.datasets.transforms.pseudo_labels import GROUNDED_SAM_TO_OCC3D
from projects.streets import CameraSettings, FrameMaker, World, build_config, generate
from projects.streets.config import FREE

OPTIONS = dict(
    scenes_train=1,
    scenes_val=0,
    frames=2,
    image_size=(96, 54),
    camera=CameraSettings(samples=1),
    seed=7,
)


@pytest.fixture(scope='module')
def config():
    return build_config(('occ3d',), camera_sweeps=1, image_classes=True, **OPTIONS)


@pytest.fixture(scope='module')
def root(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp('sequences')
    generate(config, folder, workers=1, progress=False)
    return folder


def dataset(root, config, **options):
    init_default_scope('mmdet3d')
    pipeline = [
        dict(type='LoadMultiViewImages', keep_originals=True),
        dict(type='LoadPseudoLabels'),
        dict(type='ResizeImages', size=[32, 64]),
        dict(type='PackOccInputs'),
    ]
    return Occ3DNuScenesDataset(
        ann_file='occ_infos_train.pkl',
        data_root=str(root),
        data_prefix=dict(img='nuscenes', pts='nuscenes', occ='occ3d_nuscenes/gts', pseudo='nuscenes_semantic'),
        grid=config.grids['occ3d'],
        frames=[0, -1, 1],
        neighbours='sweeps',
        pipeline=pipeline,
        **options,
    )


def test_the_vehicle_moves_on_between_the_images(root, config):
    frames = dataset(root, config)
    assert len(frames) == 2
    first, second = frames[0]['inputs'], frames[1]['inputs']
    assert first['view_missing'].tolist() == 6 * [False] + 6 * [True] + 6 * [False]  # nothing before the start
    assert not second['view_missing'].any()
    world = World(config, 0)
    speed = np.linalg.norm(world.ego_pose(0.6)[:2, 3] - world.ego_pose(0.4)[:2, 3]) / 0.2
    places = np.linalg.inv(second['cameras'].ref2cam[0].numpy())[:, :3, 3].reshape(3, 6, 3)
    np.testing.assert_allclose(np.linalg.norm(places[0] - places[1], axis=1), speed / 12, rtol=0.15)
    np.testing.assert_allclose(np.linalg.norm(places[2] - places[0], axis=1), speed / 12, rtol=0.15)
    pictures = second['originals']
    assert all((pictures[i] != pictures[i + 6]).any() and (pictures[i] != pictures[i + 12]).any() for i in range(6))


def test_class_maps_are_those_of_the_images(root, config):
    packed = dataset(root, config, missing_frames='skip')
    assert len(packed) == 1
    maps = packed[0]['inputs']['pseudo_labels']
    names = packed[0]['data_samples'].cam_names
    frame = FrameMaker(World(config, 0)).make(1)
    known = np.isin(np.arange(18), [c for c in GROUNDED_SAM_TO_OCC3D if c])
    share = []
    for name, painted in zip(names, maps):
        painted, true = painted.numpy(), frame.views[name].class_map
        labelled = painted >= 0
        assert (painted[labelled] == true[labelled]).all() and known[painted[labelled]].all()
        assert (painted == FREE).any()
        share.append(labelled[known[true]].mean())
    assert 0.85 < np.mean(share) < 1


def test_data_sets_without_them_stay_the_same(config):
    plain = build_config(('occ3d',), **OPTIONS)
    assert 'camera_sweeps' in plain.to_dict() and plain.hash() != config.hash()
    assert plain.hash() == build_config(('occ3d',), camera_sweeps=0, image_classes=False, **OPTIONS).hash()
    sweeps = build_config(('occ3d',), camera_sweeps=1, **OPTIONS)
    alone, beside = (FrameMaker(World(c, 0)).make(1) for c in (plain, sweeps))
    assert not alone.sweep_images and not alone.painted and list(beside.sweep_images) == [-1, 1]
    assert all((alone.views[name].image == view.image).all() for name, view in beside.views.items())


def test_only_nuscenes_has_them():
    with pytest.raises(ValueError, match='--camera-sweeps'):
        build_config(('occ3d',), camera_sweeps=6)
    with pytest.raises(ValueError, match='--image-classes'):
        build_config(('sscbench-kitti360',), image_classes=True)


def test_a_lot_at_the_end_of_a_street_may_be_narrow():
    config = build_config(('occ3d',), image_size=(192, 120), scenes_train=48, scenes_val=10, frames=8, seed=3)
    assert World(config, 27).actors
