import pickle
from dataclasses import replace

import numpy as np
import pytest

from projects.occ.datasets.info_formats import parse_infos, read_info_file, sensor_path
from projects.occ.structures.frame_inputs import frame_inputs, join_frames, sweep_inputs
from projects.occ.structures.frame_record import geometry_problems, occ3d_label_path, rigid, surroundocc_label_path
from projects.preparation.info_conversion import convert_infos
from projects.preparation.info_writer import write_info_file

STYLE_NAMES = ['bevdet', 'sparseocc', 'gaussrender', 'mmdet3d-v2', 'occ-1.0']


def _lidar2img(camera):
    matrix = np.eye(4)
    matrix[:3, :3] = camera.cam2img
    return matrix @ camera.lidar2cam


@pytest.mark.parametrize('style', STYLE_NAMES)
def test_every_format_gives_the_same_frames(formats, tmp_path, style):
    frames = [formats.RawFrame(index) for index in range(3)]
    path = formats.write_pickle(tmp_path / 'infos.pkl', formats.styles[style](frames))
    info_file = read_info_file(path)
    assert info_file.format == style
    assert [record.token for record in info_file.records] == [frame.token for frame in frames]
    # v2 files are rounded to float32 by their makers
    tolerance = 1e-3 if style == 'mmdet3d-v2' else 1e-6
    for record, frame in zip(info_file.records, frames):
        assert record.timestamp == pytest.approx(frame.timestamp / 1e6, abs=1e-5)
        assert record.lidar_path == frame.lidar['filename']
        assert surroundocc_label_path(record) == frame.lidar['filename'].rsplit('/', 1)[-1] + '.npy'
        np.testing.assert_allclose(record.lidar2ego, formats.se3(frame.lidar['calib']), atol=1e-6)
        np.testing.assert_allclose(record.ego2global, formats.se3(frame.lidar['pose']), atol=1e-4)
        assert record.lidar2ego.dtype == np.float64
        assert list(record.cameras) == list(frame.cameras)
        for name, camera in record.cameras.items():
            assert camera.img_path == frame.sensors[name]['filename']
            np.testing.assert_allclose(_lidar2img(camera), frame.lidar2img(name), rtol=tolerance, atol=tolerance)
            if style != 'sparseocc':
                np.testing.assert_allclose(camera.cam2ego, formats.se3(frame.sensors[name]['calib']), atol=1e-6)
        assert geometry_problems(record) == []


@pytest.mark.parametrize('style', ['bevdet', 'sparseocc', 'occ-1.0'])
def test_occ3d_path_comes_from_scene_and_token(formats, style):
    frame = formats.RawFrame(2)
    record = parse_infos(formats.styles[style]([frame])).records[0]
    assert occ3d_label_path(record) == 'scene-0002/token02/labels.npz'
    assert (record.scene_name, record.frame_idx) == ('scene-0002', 0)


def test_occ3d_path_uses_the_last_two_parts_of_occ_path(formats):
    content = formats.bevdet_infos([formats.RawFrame(0)], with_scene=False)
    content['infos'][0]['occ_path'] = '/some/where/else/gts/scene-0999/token00'
    record = parse_infos(content).records[0]
    assert occ3d_label_path(record) == 'scene-0999/token00/labels.npz'
    assert record.scene_name == 'scene-0999'
    # SurroundOcc's own files use the key for something else
    content['infos'][0]['occ_path'] = './data/nuscenes_occ/samples/x.pcd.bin.npy'
    assert occ3d_label_path(parse_infos(content).records[0]) == ''


def test_gaussrender_metadata_gives_sort_keys_with_padded_index(formats):
    content = formats.gaussrender_infos([formats.RawFrame(index) for index in (3, 0, 1)])
    info_file = parse_infos(content)
    assert [record.token for record in info_file.records] == ['token03', 'token00', 'token01']
    assert [record.sort_key for record in info_file.records] == ['scenetoken1000', 'scenetoken0000', 'scenetoken0002']


def test_old_style_without_sensor2lidar_is_completed_from_the_poses(formats):
    frame = formats.RawFrame(1)
    content = formats.bevdet_infos([frame])
    for camera in content['infos'][0]['cams'].values():
        del camera['sensor2lidar_rotation'], camera['sensor2lidar_translation']
    for name, camera in parse_infos(content).records[0].cameras.items():
        np.testing.assert_allclose(camera.lidar2cam, frame.lidar2cam(name), atol=1e-9)


def test_cameras_of_any_number(formats):
    frame = formats.RawFrame(0, cameras=('CAM_A', 'CAM_FRONT'))
    for style in STYLE_NAMES:
        assert list(parse_infos(formats.styles[style]([frame])).records[0].cameras) == ['CAM_A', 'CAM_FRONT']


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('x.jpg', 'samples/CAM/x.jpg'),
        ('./data/nuscenes/samples/CAM/x.jpg', 'samples/CAM/x.jpg'),
        ('data/nuscenes/sweeps/CAM/x.jpg', 'sweeps/CAM/x.jpg'),
        ('/abs/samples/nuscenes/samples/CAM/x.jpg', 'samples/CAM/x.jpg'),
        ('D:\\data\\samples\\CAM\\x.jpg', 'samples/CAM/x.jpg'),
        ('images/left/x.jpg', 'images/left/x.jpg'),
    ],
)
def test_sensor_path(path, expected):
    assert sensor_path(path, 'CAM') == expected


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ([1, 2], 'a list'),
        ({'images': [], 'annotations': []}, r"a dict with the keys \['annotations', 'images'\]"),
        ({'infos': {}, 'metadata': {}}, r"a dict with the keys \['infos', 'metadata'\]"),
    ],
)
def test_unknown_format_is_named(formats, tmp_path, content, found):
    path = formats.write_pickle(tmp_path / 'odd.pkl', content)
    with pytest.raises(ValueError, match=rf'odd\.pkl: unknown annotation format: found {found}.*docs/datasets\.md'):
        read_info_file(path)


@pytest.mark.parametrize(
    'content', [{'infos': [], 'metadata': {}}, {'data_list': [], 'metainfo': {}}, {'infos': {}, 'metadata': []}]
)
def test_empty_file_is_an_error(content):
    with pytest.raises(ValueError, match='holds no frames'):
        parse_infos(content)


def test_missing_key_names_frame_and_key(formats):
    content = formats.bevdet_infos([formats.RawFrame(0), formats.RawFrame(1)])
    del content['infos'][1]['cams']['CAM_BACK']['cam_intrinsic']
    with pytest.raises(ValueError, match=r"frame 1 \(token token01\): the key 'cam_intrinsic' is missing"):
        parse_infos(content)


def test_bad_matrix_names_frame_and_matrix(formats):
    content = formats.v2_infos([formats.RawFrame(0)])
    content['data_list'][0]['images']['CAM_BACK']['lidar2cam'] = [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match=r'token token00\): CAM_BACK\.lidar2cam must be a 4x4 matrix, got shape \(2, 2\)'):
        parse_infos(content)
    with pytest.raises(ValueError, match='quaternion must not be zero'):
        rigid([0, 0, 0, 0], [0, 0, 0])
    with pytest.raises(ValueError, match=r'quaternion \(4,\) w, x, y, z or a \(3, 3\) matrix, got shape \(3,\)'):
        rigid([0, 0, 0], [0, 0, 0])


def test_gaussrender_metadata_that_points_nowhere(formats):
    content = formats.gaussrender_infos([formats.RawFrame(0)])
    content['metadata'].append(('nowhere', 3))
    with pytest.raises(ValueError, match=r'metadata\[1\] points to frame 3 of scene nowhere, which infos lacks'):
        parse_infos(content)


def test_geometry_problems_are_found(formats):
    frame = formats.RawFrame(0)
    record = parse_infos(formats.styles['occ-1.0']([frame])).records[0]
    record.cameras['CAM_FRONT'].lidar2cam = np.linalg.inv(record.cameras['CAM_FRONT'].lidar2cam)
    assert any('CAM_FRONT: lidar2cam and cam2ego disagree' in problem for problem in geometry_problems(record))
    record.lidar2ego = np.diag([1.0, 2.0, 1.0, 1.0])
    record.ego2global = np.full((4, 4), np.nan)
    record.cameras['CAM_FRONT'].cam2img = np.diag([-1.0, 1.0, 1.0])
    text = ' '.join(geometry_problems(record))
    assert 'rotation of lidar2ego is not orthonormal' in text
    assert 'ego2global holds non-finite numbers' in text
    assert 'CAM_FRONT.cam2img has no positive finite focal lengths' in text


def test_written_file_reads_back_exactly(formats, tmp_path):
    content = formats.bevdet_infos([formats.RawFrame(0), formats.RawFrame(1)])
    for info in content['infos']:
        info.update(gt_boxes=np.array([[1.0, 2, 0, 4, 2, 1.5, 0.3]]), gt_names=np.array(['car']), num_lidar_pts=np.array([7]))
    records = parse_infos(content, with_boxes=True).records
    path = tmp_path / 'made' / 'infos.pkl'
    write_info_file(str(path), records, version='v1.0-mini')
    again = read_info_file(str(path), with_boxes=True)
    assert again.format == 'occ-1.0'
    assert again.metainfo['version'] == 'v1.0-mini'
    for old, new in zip(records, again.records):
        for key in ('token', 'timestamp', 'scene_name', 'frame_idx', 'label_path', 'lidar_path'):
            assert getattr(old, key) == getattr(new, key)
        assert np.array_equal(old.lidar2ego, new.lidar2ego) and np.array_equal(old.ego2global, new.ego2global)
        for name in old.cameras:
            for key in ('cam2img', 'lidar2cam', 'cam2ego', 'ego2global'):
                assert np.array_equal(getattr(old.cameras[name], key), getattr(new.cameras[name], key))
        assert np.array_equal(old.boxes.boxes, new.boxes.boxes) and new.boxes.names == ['car']
        assert new.boxes.num_lidar_pts.tolist() == [7]
    assert [file.name for file in path.parent.iterdir()] == ['infos.pkl']


def test_image_sizes_are_written_and_read(formats, tmp_path):
    record = parse_infos(formats.styles['occ-1.0']([formats.RawFrame(0)])).records[0]
    key = record.cameras['CAM_FRONT']
    assert key.image_wh is None
    key.image_wh = (1600, 900)
    sweep = replace(key, img_path='sweeps/CAM_FRONT/x.jpg')
    record.sweeps = {-1: {'CAM_FRONT': sweep}, -2: {'CAM_FRONT': replace(sweep, image_wh=(800, 450))}}
    write_info_file(str(tmp_path / 'infos.pkl'), [record], 'own')
    again = read_info_file(str(tmp_path / 'infos.pkl'), with_sweeps=True).records[0]
    assert again.cameras['CAM_FRONT'].image_wh == again.sweeps[-1]['CAM_FRONT'].image_wh == (1600, 900)
    assert again.sweeps[-2]['CAM_FRONT'].image_wh == (800, 450)
    assert again.cameras['CAM_BACK'].image_wh is None
    inputs = frame_inputs(again, 'lidar', ['CAM_FRONT', 'CAM_BACK'])
    assert inputs['cam2img_wh'].tolist() == [[1600, 900], [0, 0]]
    joined = join_frames(inputs, [(-2, sweep_inputs(inputs, again, -2, 'lidar'))])
    assert joined['cam2img_wh'].tolist() == [[1600, 900], [0, 0], [800, 450], [0, 0]]


@pytest.mark.parametrize(
    'path', ['rig/front/000.png', 'sweeps/CAM_FRONT/x.jpg', 'samples/OTHER/x.jpg', 'samples/CAM_FRONT/a/x']
)
def test_paths_outside_the_usual_folder_are_kept(formats, tmp_path, path):
    record = parse_infos(formats.styles['occ-1.0']([formats.RawFrame(0)])).records[0]
    record.cameras['CAM_FRONT'].img_path = record.lidar_path = path
    write_info_file(str(tmp_path / 'infos.pkl'), [record], 'own')
    again = read_info_file(str(tmp_path / 'infos.pkl')).records[0]
    assert (again.cameras['CAM_FRONT'].img_path, again.lidar_path) == (path, path)
    # mmdetection3d expects the name alone where the folder is the usual one
    image = pickle.loads((tmp_path / 'infos.pkl').read_bytes())['data_list'][0]['images']['CAM_BACK']
    assert f'samples/CAM_BACK/{image["img_path"]}' == again.cameras['CAM_BACK'].img_path == record.cameras['CAM_BACK'].img_path


def test_both_old_box_conventions_become_one(formats):
    box = np.array([5.0, 1.0, 0.2, 4.5, 1.9, 1.6, 0.7])
    older = box[[0, 1, 2, 4, 3, 5, 6]].copy()
    older[6] = -box[6] - np.pi / 2
    for given in (box, older):
        content = formats.bevdet_infos([formats.RawFrame(0)])
        content['infos'][0].update(gt_boxes=given[None], gt_names=np.array(['car']))
        boxes = parse_infos(content, with_boxes=True).records[0].boxes
        np.testing.assert_allclose(boxes.boxes[0], box, atol=1e-12)
        assert boxes.num_lidar_pts is None


def test_columns_after_the_seventh_are_left_out(formats):
    boxes = np.arange(27.0).reshape(3, 9)
    boxes[:, 3:5] = 4.5, 1.9
    content = formats.bevdet_infos([formats.RawFrame(0), formats.RawFrame(1)])
    content['infos'][0].update(gt_boxes=boxes, gt_names=np.array(['car'] * 3))
    content['infos'][1].update(gt_boxes=[], gt_names=[])
    first, second = (record.boxes for record in parse_infos(content, with_boxes=True).records)
    assert np.array_equal(first.boxes, boxes[:, :7]) and first.names == ['car'] * 3
    assert second.boxes.shape == (0, 7) and second.names == []


@pytest.mark.parametrize(
    ('boxes', 'message'),
    [
        (np.zeros(7), r'gt_boxes must be \(K, 7\) .*, got \(7,\)'),
        (np.zeros((7, 6)), r'gt_boxes must be \(K, 7\) .*, got \(7, 6\)'),
        (np.zeros((2, 7)), 'gt_names must have a name for each of the 2 rows of gt_boxes, got 1'),
    ],
)
def test_odd_boxes_name_the_frame(formats, tmp_path, boxes, message):
    content = formats.bevdet_infos([formats.RawFrame(0)])
    content['infos'][0].update(gt_boxes=boxes, gt_names=['car'])
    with pytest.raises(ValueError, match=rf'frame 0 \(token token00\): {message}'):
        parse_infos(content, with_boxes=True)
    # a conversion must not drop them either
    source = formats.write_pickle(tmp_path / 'in.pkl', content)
    with pytest.raises(ValueError, match=message):
        convert_infos(source, tmp_path / 'out.pkl')


def test_boxes_of_unknown_category_are_left_out(formats):
    content = formats.v2_infos([formats.RawFrame(0)])
    content['data_list'][0]['instances'] = [
        dict(bbox_3d=[1.0, 2, 3, 4, 5, 6, 0], bbox_label_3d=-1, num_lidar_pts=3),
        dict(bbox_3d=[7.0, 2, 3, 4, 5, 6, 0], bbox_label_3d=0, num_lidar_pts=2),
    ]
    boxes = parse_infos(content, with_boxes=True).records[0].boxes
    assert boxes.names == ['car'] and boxes.boxes[0, 0] == 7 and boxes.num_lidar_pts.tolist() == [2]


def test_real_old_style_files_agree_with_each_other(shared_data):
    folder = shared_data / 'nuscenes_mini_val_infos'
    bevdet = read_info_file(str(folder / 'nuscenes_infos_val.pkl'))
    sparse = read_info_file(str(folder / 'nuscenes_infos_val_mini_sweep.pkl'))
    assert (bevdet.format, sparse.format) == ('bevdet', 'sparseocc')
    assert len(bevdet.records) == len(sparse.records) == 81
    for one, other in zip(bevdet.records, sparse.records):
        assert geometry_problems(one) == [] and geometry_problems(other) == []
        assert one.token == other.token and one.lidar_path == other.lidar_path
        for name, camera in one.cameras.items():
            # the stored sensor-to-LiDAR matrix is the chain over both ego poses
            chain = np.linalg.inv(camera.ego2global @ camera.cam2ego) @ one.ego2global @ one.lidar2ego
            np.testing.assert_allclose(camera.lidar2cam, chain, atol=1e-9)
            np.testing.assert_allclose(other.cameras[name].lidar2cam, camera.lidar2cam, atol=1e-12)
            assert other.cameras[name].cam2ego is None
            assert other.cameras[name].img_path == camera.img_path
            assert camera.img_path.startswith(f'samples/{name}/')


def test_real_v2_file(shared_data):
    path = next((shared_data / 'nuscenes_frame').glob('*.pkl'))
    info_file = read_info_file(str(path), with_boxes=True)
    record = info_file.records[0]
    assert info_file.format == 'mmdet3d-v2' and info_file.metainfo['version'] == 'v1.0-mini'
    assert record.token == 'ca9a282c9e77460f8360f564131a8af5'
    assert geometry_problems(record) == []
    assert (shared_data / 'nuscenes_frame' / record.lidar_path.rsplit('/', 1)[-1]).is_file()
    assert len(record.boxes.names) == 68  # of 69, one has no detection class
    assert occ3d_label_path(record) == ''


@pytest.mark.parametrize(
    'content',
    [
        5,
        [],
        dict(infos=[], metadata=5),
        dict(infos=[5], metadata=dict()),
        dict(infos=[dict(cams=[1])], metadata=dict()),
        dict(infos=[dict(cams=dict(a=5))], metadata=dict()),
        dict(infos={}, metadata=[5]),
        dict(infos=dict(a=5), metadata=[('a', 0)]),
        dict(metainfo=dict(), data_list=5),
        dict(metainfo=dict(), data_list=[5]),
        dict(metainfo=dict(), data_list=[dict(token=['a'])]),
        dict(metainfo=dict(info_version=10**30), data_list=dict(a=1)),
    ],
)
def test_content_of_any_other_kind_is_one_sentence(content):
    with pytest.raises(ValueError, match='annotations'):
        parse_infos(content)


@pytest.mark.parametrize(
    'key, value', [('token', 'x/..'), ('token', 'a\0b'), ('token', 5), ('scene_name', '../x'), ('timestamp', 10**400)]
)
def test_names_and_numbers_of_frames_are_checked_where_they_are_read(formats, key, value):
    content = formats.styles['occ-1.0']([formats.RawFrame(index) for index in range(3)])
    content['data_list'][1][key] = value
    with pytest.raises(ValueError, match='frame 1'):
        parse_infos(content)
