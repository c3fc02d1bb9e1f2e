"""Views of several frames: the same world from every one of them, in every format, across scene borders."""

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest

from projects.occ.datasets import Occ3DNuScenesDataset, SSCBenchKITTI360Dataset, SurroundOccNuScenesDataset
from projects.occ.datasets.info_formats import parse_infos, read_info_file
from projects.occ.datasets.kitti360_poses import read_kitti360_poses, write_poses
from projects.occ.structures.frame_record import CameraRecord
from projects.preparation.info_writer import write_info_file

LOADING = [dict(type='LoadMultiViewImages'), dict(type='LoadOccLabels')]
RESIZING = dict(type='ResizeCropFlipImages', final_wh=(24, 14), training=True, resize_lim=(0.77, 1.1), rand_flip=True)
WORLD = np.array([[620.0, 1590.0, 1.0, 1.0], [595.0, 1640.0, 3.0, 1.0], [580.0, 1600.0, 0.5, 1.0], [604.0, 1570.0, 2.0, 1.0]])


@pytest.fixture
def build(tiny_root, formats):
    """Builds a data set of either benchmark over the four made-up frames (two scenes of two) in a format."""

    def call(benchmark, style, **kwargs):
        path = tiny_root.path / f'{style}.pkl'
        formats.write_pickle(path, formats.styles[style](tiny_root.frames))
        cls, labels = {'occ3d': (Occ3DNuScenesDataset, 'gts'), 'surroundocc': (SurroundOccNuScenesDataset, 'occ')}[benchmark]
        args = dict(
            ann_file=path.name,
            data_root=str(tiny_root.path),
            data_prefix=dict(img='nuscenes', pts='nuscenes', occ=labels),
            grid=formats.tiny_grid(benchmark),
            frames=(-1, 0, 1),
        )
        return cls(**{**args, **kwargs})

    return call


def seen(info, points):
    """Pixels and depths of points of the reference frame in every view, (V, P, 3)."""
    return np.einsum('vij,pj->vpi', info['ref2img'], points)[..., :3]


def own_projection(frame, name, points, formats):
    """Pixels times depth of global points by the camera's own records."""
    camera = frame.sensors[name]
    global2cam = np.linalg.inv(formats.se3(camera['pose']) @ formats.se3(camera['calib']))
    return (np.array(camera['K']) @ (global2cam @ points.T)[:3]).T


@pytest.mark.parametrize('style', ['bevdet', 'sparseocc', 'gaussrender', 'mmdet3d-v2', 'occ-1.0'])
@pytest.mark.parametrize('benchmark', ['occ3d', 'surroundocc'])
def test_a_static_point_is_the_same_point_from_every_frame(build, tiny_root, formats, benchmark, style):
    if style == 'mmdet3d-v2' and benchmark == 'surroundocc':
        with pytest.raises(ValueError, match='name neither their neighbours .* nor their scenes.*convert-infos'):
            build(benchmark, style)
        return
    if style == 'gaussrender' and benchmark == 'occ3d':
        pytest.skip('these files have no Occ3D labels')
    dataset = build(benchmark, style, ego_motion_compensation=True)
    # float32 in the files of mmdetection3d: half a millimetre at these coordinates
    tolerance = 0.05 if style == 'mmdet3d-v2' else 1e-6
    for index, frame in enumerate(tiny_root.frames):
        info = dataset.get_data_info(index)
        assert info['frame'].tolist() == [0] * 6 + [-1] * 6 + [1] * 6
        to_global = formats.se3(frame.lidar['pose'])
        if benchmark == 'surroundocc':
            to_global = to_global @ formats.se3(frame.lidar['calib'])
        pixels = seen(info, WORLD @ np.linalg.inv(to_global).T)
        for view, (offset, name) in enumerate(zip(info['frame'], info['cam_names'])):
            missing = info['view_missing'][view]
            assert missing == (offset == (-1 if index % 2 == 0 else 1))
            source = tiny_root.frames[index if missing else index + offset]
            np.testing.assert_allclose(pixels[view], own_projection(source, name, WORLD, formats), rtol=1e-5, atol=tolerance)
            assert info['img_paths'][view].endswith(source.sensors[name]['filename'])
            in_camera = np.linalg.inv(info['cam2img'][view]) @ pixels[view].T
            np.testing.assert_allclose(
                (info['ref2cam'][view] @ np.linalg.inv(to_global) @ WORLD.T)[:3], in_camera, atol=tolerance
            )


def test_views_without_motion_compensation_still_move_with_the_vehicle(build, tiny_root, formats):
    info = build('occ3d', 'occ-1.0', ego_motion_compensation=False).get_data_info(1)
    key, before = tiny_root.frames[1], tiny_root.frames[0]
    moved = np.linalg.inv(formats.se3(before.lidar['pose'])) @ formats.se3(key.lidar['pose'])
    for view, name in enumerate(info['cam_names'][6:12], start=6):
        mounting = np.linalg.inv(formats.se3(before.sensors[name]['calib']))
        expected = np.array(before.sensors[name]['K']) @ (mounting @ moved)[:3]
        np.testing.assert_allclose(info['ref2img'][view, :3], expected, atol=1e-7)


def test_lidar_files_of_all_frames_are_named(build, tiny_root, formats):
    info = build('occ3d', 'occ-1.0').get_data_info(1)
    (key, before), frames = info['lidar_frames'], tiny_root.frames
    assert (key['frame'], before['frame']) == (0, -1)
    assert key['lidar_path'] == info['lidar_path'] and before['lidar_path'].endswith(frames[0].lidar['filename'])
    assert (key['token'], before['token']) == ('token01', 'token00')
    np.testing.assert_allclose(key['lidar2ref'], formats.se3(frames[1].lidar['calib']), atol=1e-12)
    own = formats.se3(frames[0].lidar['pose']) @ formats.se3(frames[0].lidar['calib'])
    np.testing.assert_allclose(formats.se3(frames[1].lidar['pose']) @ before['lidar2ref'], own, atol=1e-9)


def test_the_key_frame_comes_first_and_the_others_as_asked(build):
    dataset = build('occ3d', 'occ-1.0', frames=[1, 0, -1, -2], cam_names=['CAM_BACK', 'CAM_FRONT'])
    info = dataset.get_data_info(0)
    assert info['frame'].tolist() == [0, 0, 1, 1, -1, -1, -2, -2]
    assert info['cam_names'] == ['CAM_BACK', 'CAM_FRONT'] * 4
    assert info['view_missing'].tolist() == [False] * 4 + [True] * 4


def test_one_frame_alone_is_what_it_was_without_the_option(build):
    alone, several = build('occ3d', 'occ-1.0', frames=(0,)), build('occ3d', 'occ-1.0')
    for index in range(4):
        one, other = alone.get_data_info(index), several.get_data_info(index)
        assert set(one) == set(other)
        for key in ('cam2img', 'ref2cam', 'ref2img'):
            assert np.array_equal(one[key], other[key][:6])
        assert one['img_paths'] == other['img_paths'][:6] and one['occ_path'] == other['occ_path']


def test_images_of_all_frames_pass_the_same_transforms(build):
    pipeline = [*LOADING, RESIZING]
    random.seed(1)
    item = build('occ3d', 'occ-1.0', pipeline=pipeline)[1]
    assert len(item['img']) == 18 and {image.shape for image in item['img']} == {(14, 24, 3)}
    # no frame after this one: the key frame's own images
    assert all(np.array_equal(item['img'][view], item['img'][12 + view]) for view in range(6))
    assert not np.array_equal(item['img'][0], item['img'][6])
    np.testing.assert_allclose(item['warp'], np.tile(item['warp'][0], (18, 1, 1)), atol=0)
    assert item['gt_occ'].shape == (8, 8, 2)


def test_frames_that_lack_a_neighbour_can_be_left_out(build):
    with pytest.raises(ValueError, match=r"missing_frames='skip' leaves no key frame over: none of 4 has all of frames"):
        build('occ3d', 'occ-1.0', missing_frames='skip')
    dataset = build('occ3d', 'occ-1.0', frames=(0, -1), missing_frames='skip')
    assert [dataset.get_data_info(index)['token'] for index in range(len(dataset))] == ['token01', 'token03']
    with pytest.raises(ValueError, match="missing_frames='skip' is for training only"):
        build('occ3d', 'occ-1.0', missing_frames='skip', test_mode=True)


def test_neighbours_come_from_all_frames_of_the_file(build, tiny_root, formats):
    frames = [formats.RawFrame(index) for index in range(10)]
    formats.write_pickle(tiny_root.path / 'ten.pkl', formats.v2_infos(frames, ours=True))
    dataset = build('occ3d', 'occ-1.0', ann_file='ten.pkl', subset='mini')
    assert len(dataset) == 2
    for index in range(2):
        info = dataset.get_data_info(index)
        number = int(info['token'].removeprefix('token'))
        beside = number + (1 if number % 2 == 0 else -1)
        assert [scan['token'] for scan in info['lidar_frames']] == [info['token'], f'token{beside:02d}']


def test_named_neighbours_count_more_than_the_order(build, tiny_root, formats):
    content = formats.v2_infos(tiny_root.frames, ours=True)
    for info, before, after in zip(content['data_list'], ('', 'token00', 'token01', 'gone'), ('token01', 'token02', '', '')):
        info.update(prev=before, next=after, scene_name='')
    formats.write_pickle(tiny_root.path / 'named.pkl', content)
    dataset = build('occ3d', 'occ-1.0', ann_file='named.pkl', frames=(0, -2, -1, 1))
    tokens = [[scan['token'] for scan in dataset.get_data_info(index)['lidar_frames']] for index in range(4)]
    assert tokens == [
        ['token00', 'token01'],
        ['token01', 'token00', 'token02'],
        ['token02', 'token00', 'token01'],
        ['token03'],
    ]
    assert dataset.get_data_info(1)['view_missing'].tolist() == [False] * 6 + [True] * 6 + [False] * 12


def test_without_frame_numbers_time_gives_the_order(build, tiny_root, formats):
    content = formats.v2_infos(tiny_root.frames, ours=True)
    content['data_list'] = [content['data_list'][index] for index in (1, 0, 3, 2)]
    for info in content['data_list']:
        del info['frame_idx']
    formats.write_pickle(tiny_root.path / 'late.pkl', content)
    info = build('occ3d', 'occ-1.0', ann_file='late.pkl').get_data_info(0)
    assert [(scan['frame'], scan['token']) for scan in info['lidar_frames']] == [(0, 'token01'), (-1, 'token00')]


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(frames=(-1, 1)), r'frames must be different whole numbers with 0.*got \(-1, 1\)'),
        (dict(frames=(0, 1, 1)), r'got \(0, 1, 1\)'),
        (dict(frames=(0, 0.5)), r'got \(0, 0\.5\)'),
        (dict(frames='01'), "got '01'"),
        (dict(neighbours='sweep'), r"neighbours must be one of \('key_frames', 'sweeps'\), got 'sweep'"),
        (dict(missing_frames='zero'), r"missing_frames must be one of \('repeat', 'skip'\), got 'zero'"),
    ],
)
def test_bad_arguments_are_refused(build, change, text):
    with pytest.raises(ValueError, match=text):
        build('occ3d', 'occ-1.0', **change)


def sweep_content(formats, frames):
    """Our format with the images before and after the key frame's of two cameras."""
    content = formats.v2_infos(frames, ours=True)
    for frame, info in zip(frames, content['data_list']):
        info['camera_sweeps'] = {}
        for name in ('CAM_FRONT', 'CAM_BACK'):
            images = {}
            for offset in (-1, 1):
                pose = formats.se3(frame.sensors[name]['pose'])
                pose[:3, 3] += [0.7 * offset, 0.3 * offset, 0.0]
                path = f'sweeps/{name}/{frame.token}_{offset}.jpg'
                images[offset] = dict(img_path=path, ego2global=pose.tolist(), timestamp=0.08 * offset)
            info['camera_sweeps'][name] = images
    return content


@pytest.mark.parametrize('benchmark', ['occ3d', 'surroundocc'])
def test_camera_sweeps_see_the_same_world(build, tiny_root, formats, benchmark):
    formats.write_pickle(tiny_root.path / 's.pkl', sweep_content(formats, tiny_root.frames))
    dataset = build(benchmark, 'occ-1.0', ann_file='s.pkl', neighbours='sweeps', cam_names=['CAM_FRONT', 'CAM_BACK'])
    for index, frame in enumerate(tiny_root.frames):
        info = dataset.get_data_info(index)
        assert not info['view_missing'].any() and info['frame'].tolist() == [0, 0, -1, -1, 1, 1]
        to_global = formats.se3(frame.lidar['pose'])
        if benchmark == 'surroundocc':
            to_global = to_global @ formats.se3(frame.lidar['calib'])
        pixels = seen(info, WORLD @ np.linalg.inv(to_global).T)
        for view in range(2, 6):
            offset, name = info['frame'][view], info['cam_names'][view]
            pose = formats.se3(frame.sensors[name]['pose'])
            pose[:3, 3] += [0.7 * offset, 0.3 * offset, 0.0]
            in_camera = np.linalg.inv(pose @ formats.se3(frame.sensors[name]['calib'])) @ WORLD.T
            np.testing.assert_allclose(pixels[view], (np.array(frame.sensors[name]['K']) @ in_camera[:3]).T, atol=1e-6)
            assert info['img_paths'][view].endswith(f'nuscenes/sweeps/{name}/{frame.token}_{offset}.jpg')
        assert [scan['frame'] for scan in info['lidar_frames']] == [0]


def test_cameras_without_a_sweep_are_marked(build, tiny_root, formats):
    formats.write_pickle(tiny_root.path / 's.pkl', sweep_content(formats, tiny_root.frames))
    names = ['CAM_FRONT', 'CAM_FRONT_LEFT']
    info = build('occ3d', 'occ-1.0', ann_file='s.pkl', neighbours='sweeps', cam_names=names, frames=(0, 1, 2)).get_data_info(1)
    assert info['view_missing'].tolist() == [False, False, False, True, True, True]
    assert info['img_paths'][3] == info['img_paths'][1] and np.array_equal(info['ref2cam'][3], info['ref2cam'][1])
    assert np.array_equal(info['ref2img'][4], info['ref2img'][0])
    with pytest.raises(ValueError, match=r"infos\.pkl: it knows no camera sweeps.*neighbours='key_frames'"):
        build('occ3d', 'occ-1.0', ann_file='infos.pkl', neighbours='sweeps')


def test_sweeps_are_written_and_read_back(tiny_root, formats, tmp_path):
    records = parse_infos(sweep_content(formats, tiny_root.frames), with_sweeps=True).records
    other = records[0].sweeps[1]['CAM_BACK']
    records[0].sweeps[1]['CAM_BACK'] = replace(other, cam2img=other.cam2img + 1, cam2ego=np.eye(4))
    # a source that knows where the camera was, but not where the vehicle was
    records[1].sweeps = {-2: {'CAM_FRONT': CameraRecord('sweeps/CAM_FRONT/x.jpg', np.eye(3), other.lidar2cam)}}
    write_info_file(str(tmp_path / 'out.pkl'), records, 'v1.0-mini')
    again = read_info_file(str(tmp_path / 'out.pkl'), with_sweeps=True).records
    for one, two in zip(records, again):
        assert {offset: set(cameras) for offset, cameras in one.sweeps.items()} == {
            offset: set(cameras) for offset, cameras in two.sweeps.items()
        }
        for offset, cameras in one.sweeps.items():
            for name, camera in cameras.items():
                found = two.sweeps[offset][name]
                assert (found.img_path, found.timestamp) == (camera.img_path, camera.timestamp)
                assert np.array_equal(found.cam2img, camera.cam2img)
                if name != 'CAM_BACK' or found.cam2ego[0, 3] != 0:
                    np.testing.assert_allclose(found.lidar2cam, camera.lidar2cam, atol=1e-12)
    assert np.array_equal(again[0].sweeps[1]['CAM_BACK'].cam2ego, np.eye(4))
    assert read_info_file(str(tmp_path / 'out.pkl')).records[0].sweeps == {}


def real_infos(shared_data, name):
    return read_info_file(str(shared_data / 'nuscenes_mini_val_infos' / name), with_sweeps=True).records


def with_scenes(records):
    """The real files name no scenes; these two were recorded in different logs."""
    logs = [record.lidar_path.rsplit('/', 1)[-1].split('__')[0] for record in records]
    return [replace(record, scene_name=log) for record, log in zip(records, logs)]


@pytest.mark.parametrize('grid', ['occ3d', 'surroundocc'])
def test_real_frames_see_the_same_world(shared_data, tmp_path, formats, grid):
    records = with_scenes(real_infos(shared_data, 'nuscenes_infos_val.pkl'))
    write_info_file(str(tmp_path / 'infos.pkl'), records, 'v1.0-mini')
    cls = Occ3DNuScenesDataset if grid == 'occ3d' else SurroundOccNuScenesDataset
    dataset = cls(ann_file=str(tmp_path / 'infos.pkl'), grid=formats.tiny_grid(grid), frames=(0, -1, 1, 3))
    for index in (0, 5, 38, 39, 40, 80):
        info, record = dataset.get_data_info(index), records[index]
        expected = [offset for offset in (0, -1, 1, 3) if (0 <= index + offset < 40) == (index < 40) and index + offset < 81]
        assert [scan['frame'] for scan in info['lidar_frames']] == expected
        ref2global = record.ego2global if grid == 'occ3d' else record.ego2global @ record.lidar2ego
        points = np.column_stack([np.random.default_rng(index).uniform(-30, 30, (20, 3)), np.ones(20)])
        for view in np.flatnonzero(~info['view_missing']):
            camera = records[index + info['frame'][view]].cameras[info['cam_names'][view]]
            chain = np.linalg.inv(camera.ego2global @ camera.cam2ego) @ ref2global
            found = points @ info['ref2cam'][view].T
            np.testing.assert_allclose(found, points @ chain.T, atol=2e-3)
        for scan in info['lidar_frames']:
            own = records[index + scan['frame']]
            np.testing.assert_allclose(ref2global @ scan['lidar2ref'], own.ego2global @ own.lidar2ego, atol=1e-8)
    with pytest.raises(ValueError, match=r'nuscenes_infos_val\.pkl: its frames name neither'):
        path = shared_data / 'nuscenes_mini_val_infos' / 'nuscenes_infos_val.pkl'
        SurroundOccNuScenesDataset(ann_file=str(path), grid=formats.tiny_grid('surroundocc'), frames=(0, 1))


def test_real_camera_sweeps(shared_data, formats):
    path = shared_data / 'nuscenes_mini_val_infos' / 'nuscenes_infos_val_mini_sweep.pkl'
    raw = pickle.loads(path.read_bytes())['infos']
    dataset = SurroundOccNuScenesDataset(
        ann_file=str(path), grid=formats.tiny_grid('surroundocc'), frames=(0, -1, -5), neighbours='sweeps'
    )
    assert len(dataset) == 81
    # the first frames of the two scenes have none before them
    missing = [index for index in range(81) if dataset.get_data_info(index)['view_missing'].any()]
    assert missing == [0, 40]
    records = real_infos(shared_data, path.name)
    info = dataset.get_data_info(7)
    lidar2global = records[7].ego2global @ records[7].lidar2ego
    for view in range(6, 18):
        image = raw[7]['sweeps'][-1 - info['frame'][view]][info['cam_names'][view]]
        assert info['img_paths'][view].endswith(image['data_path'].split('sweeps/')[1])
        cam2global = np.eye(4)
        cam2global[:3, :3], cam2global[:3, 3] = image['sensor2global_rotation'], image['sensor2global_translation']
        np.testing.assert_allclose(cam2global @ info['ref2cam'][view], lidar2global, atol=1e-6)
        # the vehicle drove less between two images than between two key frames
        moved = np.linalg.norm((info['ref2cam'][view] @ np.linalg.inv(info['ref2cam'][view % 6]))[:3, 3])
        assert 0 < moved < (1.5 if info['frame'][view] == -1 else 8)


KITTI = '2013_05_28_drive_0000_sync'


@pytest.fixture
def kitti(shared_data, tmp_path):
    """A real drive around SSCBench frame 855: poses and calibration; images and voxels are only names."""
    source = shared_data / 'kitti360_sample'
    if not source.is_dir():
        pytest.skip(f'no kitti360_sample in {shared_data}')
    known = read_kitti360_poses(source, KITTI)
    for folder in ('voxels', 'image_00/data_rect'):
        (tmp_path / 'data_2d_raw' / KITTI / folder).mkdir(parents=True)
    for number in range(850, 865):
        (tmp_path / 'data_2d_raw' / KITTI / 'image_00/data_rect' / f'{number:06d}.png').touch()
        if number % 5 == 0:
            (tmp_path / 'data_2d_raw' / KITTI / 'voxels' / f'{number:06d}.bin').touch()
    # SSCBench numbers the frames that have a pose
    raw = {number: number + 92 for number in range(850, 865)}
    poses = {number: known[frame] for number, frame in raw.items() if frame in known and number != 858}
    (tmp_path / 'poses').mkdir()
    write_poses(tmp_path / 'poses' / f'{KITTI}.npz', poses)
    return tmp_path, poses


@pytest.fixture
def kitti_dataset(kitti, formats):
    from projects.occ.structures.benchmark_classes import KITTI360_CLASSES

    root, _ = kitti
    grid = dict(formats.tiny_grid('surroundocc'), class_names=['empty', *KITTI360_CLASSES])

    def call(**kwargs):
        args = dict(grid=grid, data_root=str(root), sequences=[0], poses='poses', frames=(0, -1, 1))
        return SSCBenchKITTI360Dataset(**{**args, **kwargs})

    return call


def test_real_kitti360_frames_see_the_same_world(kitti, kitti_dataset):
    _, poses = kitti
    dataset = kitti_dataset(data_prefix=dict(pts='data_3d_raw'))
    assert [dataset.get_data_info(index)['frame_idx'] for index in range(3)] == [850, 855, 860]
    info = dataset.get_data_info(1)
    assert info['frame'].tolist() == [0, -1, 1] and not info['view_missing'].any()
    points = np.column_stack([np.random.default_rng(0).uniform(2, 30, (20, 3)), np.ones(20)])
    for view, number in enumerate((855, 850, 860)):
        chain = dataset.camera.ref2cam @ np.linalg.inv(poses[number]) @ poses[855]
        np.testing.assert_allclose(points @ info['ref2cam'][view].T, points @ chain.T, atol=1e-7)
        assert info['img_paths'][view].endswith(f'{number:06d}.png') and info['depth_paths'][view].endswith(f'{number:06d}.npy')
        np.testing.assert_allclose(poses[855] @ info['lidar_frames'][view]['lidar2ref'], poses[number], atol=1e-7)
    ends = [dataset.get_data_info(index)['view_missing'].tolist() for index in (0, 2)]
    assert ends == [[False, True, False], [False, False, True]]


def test_kitti360_images_between_the_key_frames(kitti, kitti_dataset):
    _, poses = kitti
    dataset = kitti_dataset(neighbours='sweeps', frames=(0, 1, -2, 3))
    info = dataset.get_data_info(1)
    # 858 has no pose
    assert info['view_missing'].tolist() == [False, False, False, True]
    for view, number in ((1, 856), (2, 853)):
        chain = dataset.camera.ref2cam @ np.linalg.inv(poses[number]) @ poses[855]
        np.testing.assert_allclose(info['ref2cam'][view], chain, atol=1e-9)
        assert info['img_paths'][view].endswith(f'{number:06d}.png')
    assert len(kitti_dataset(neighbours='sweeps', frames=(0, 3), missing_frames='skip')) == 2


def test_kitti360_needs_poses_for_neighbours(kitti_dataset):
    with pytest.raises(ValueError, match=r'frames=\(0, -1, 1\) needs the poses of the drives'):
        kitti_dataset(poses=None)
