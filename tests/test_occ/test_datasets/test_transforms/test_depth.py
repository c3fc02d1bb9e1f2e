"""Tests of depth maps: files, LiDAR, and what the other transforms do with them."""

import random

import numpy as np
import pytest
import torch

from projects.occ.datasets import LoadDepthFromLidar, LoadDepthMaps, PackOccInputs, ResizeCropFlipImages
from projects.occ.datasets.transforms.depth import lidar_depth
from projects.occ.structures import VoxelGrid

FORWARD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
CAM2IMG = np.array([[10.0, 0, 12], [0, 10, 8], [0, 0, 1]])
GRID = VoxelGrid((-2, -2, -1, 2, 2, 1), 1, (4, 4, 2), 'lidar', 0, class_names=('free', 'car'))


@pytest.fixture
def results(tmp_path):
    ref2img = FORWARD.copy()
    ref2img[:3] = CAM2IMG @ FORWARD[:3]
    depth = np.arange(16 * 24, dtype=np.float32).reshape(16, 24)
    np.save(tmp_path / 'd.npy', depth)
    return dict(
        token='t0',
        cam_names=['image_00'],
        frame=np.zeros(1, dtype=np.int64),
        img=[np.repeat(depth[..., None], 3, axis=2).astype(np.uint8)],
        depth_paths=[str(tmp_path / 'd.npy')],
        ref2img=ref2img[None],
        ref2cam=FORWARD[None],
        cam2img=CAM2IMG[None],
        img_wh=np.array([[24.0, 16.0]]),
        ori_img_wh=np.array([[24.0, 16.0]]),
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        grid=GRID,
        img_paths=['i.png'],
        scene_name='s',
        frame_idx=0,
        lidar_path='',
    )


def test_maps_are_loaded_and_packed(results):
    np.save(results['depth_paths'][0], np.load(results['depth_paths'][0]).astype(np.float64))
    packed = PackOccInputs()(LoadDepthMaps()(results))
    depth = packed['inputs']['depth']
    assert depth.shape == (1, 16, 24) and depth.dtype == torch.float32 and depth[0, 1, 2] == 26
    assert 'depth' not in PackOccInputs()({k: v for k, v in results.items() if k != 'depth'})['inputs']


def test_missing_map_says_what_to_do(results):
    results['depth_paths'] = ['nowhere/000005.npy']
    text = r"depth map of image_00, frame t0: 'nowhere/000005.npy' does not exist.*data_prefix\['depth'\].*LoadDepthFromLidar"
    with pytest.raises(FileNotFoundError, match=text):
        LoadDepthMaps()(results)
    del results['depth_paths']
    with pytest.raises(ValueError, match='names no depth maps'):
        LoadDepthMaps()(results)


@pytest.mark.parametrize(
    'change, text',
    [
        (lambda d: d[:-1], r'expected floats of the shape of the image, \(16, 24\), found float32 \(15, 24\)'),
        (lambda d: d.astype(np.int32), r'expected floats .* found int32 \(16, 24\)'),
        (lambda d: d - 1, r'1 pixels are negative or not finite \(the first is -1.0\)'),
        (lambda d: np.where(d > 380, np.nan, d), r'3 pixels are negative or not finite \(the first is nan\)'),
        (lambda d: d / np.float32(0), 'disparities of 0 have to be cut off'),
    ],
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_bad_maps_are_refused(results, change, text):
    path = results['depth_paths'][0]
    np.save(path, change(np.load(path)))
    with pytest.raises(ValueError, match=text):
        LoadDepthMaps()(results)


def test_a_truncated_map_is_refused(results):
    path = results['depth_paths'][0]
    data = open(path, 'rb').read()
    with open(path, 'wb') as file:
        file.write(data[:200])
    with pytest.raises(ValueError, match=r'\(200 bytes\) is damaged or cut short'):
        LoadDepthMaps()(results)


def test_depth_follows_crop_and_padding(results):
    results = LoadDepthMaps()(results)
    whole = dict(resize_lim=(1.2, 1.2), relative=True)  # as large as it is: 20 of 24 columns are the smallest to cover
    results = ResizeCropFlipImages(final_wh=(20, 12), training=True, **whole)(results)
    depth, image = results['depth'][0], results['img'][0]
    assert depth.shape == (12, 20) and np.array_equal(depth.astype(np.uint8), image[..., 0])


def test_depth_is_resized_by_the_nearest_pixel(results):
    results = LoadDepthMaps()(results)
    before = results['depth'][0]
    results = ResizeCropFlipImages(final_wh=(12, 8), training=False)(results)
    # two pixels become one; its centre is the border of two, of which the second is taken
    assert np.array_equal(results['depth'][0], before[1::2, 1::2])
    results['depth'][0] = results['depth'][0].astype(np.float32)
    results = ResizeCropFlipImages(final_wh=(12, 8), training=True, rand_flip=True, rot_lim=(180.0, 180.0))(results)
    assert set(np.unique(results['depth'][0])) <= {0, *np.unique(before)}


def test_depth_of_another_size_is_not_packed(results):
    results = LoadDepthMaps()(results)
    results['depth'][0] = results['depth'][0][1:]
    with pytest.raises(ValueError, match=r'depth map of image_00 has the shape \(15, 24\), its image \(16, 24\)'):
        PackOccInputs()(results)


def test_lidar_depth_by_hand():
    # two points on one pixel, one elsewhere, one behind, one out of view
    points = np.array([[4.0, 0.2, 0.2], [8.0, 0.4, 0.4], [2.0, -1.1, 0.1], [-3.0, 0, 0], [1.0, 5, 0]])
    depth = lidar_depth(points, FORWARD, CAM2IMG, (24, 16), radius=0)
    # (4, 0.2, 0.2): u = 12 - 0.5 = 11.5, v = 7.5; (2, -1.1, 0.1): u = 17.5, v = 7.5
    assert depth.dtype == np.float32 and depth.shape == (16, 24)
    assert {tuple(i) for i in np.argwhere(depth)} == {(7, 11), (7, 17)}
    assert depth[7, 11] == 4 and depth[7, 17] == 2
    filled = lidar_depth(points, FORWARD, CAM2IMG, (24, 16), radius=2)
    assert filled[7, 13] == 4 and filled[7, 15] == 2 and filled[5, 11] == 4 and filled[4, 11] == 0
    assert (lidar_depth(points[3:], FORWARD, CAM2IMG, (24, 16)) == 0).all()


def test_lidar_depth_from_a_file(results, tmp_path):
    sweep = np.array([[4.0, 0.2, 0.2, 0.5], [np.nan, 0, 0, 0]], dtype='<f4')
    path = tmp_path / 's.bin'
    path.write_bytes(sweep.tobytes())
    scan = dict(frame=0, token='t0', lidar_path=str(path), lidarseg_path='', lidar2ref=np.eye(4))
    results['lidar_frames'] = [scan]
    depth = LoadDepthFromLidar(radius=0)(dict(results))['depth']
    assert len(depth) == 1 and depth[0][7, 11] == 4 and np.count_nonzero(depth[0]) == 1
    # in an ego frame the LiDAR's mounting counts
    mounted = np.eye(4)
    mounted[0, 3] = 1.0
    assert LoadDepthFromLidar(radius=0)(dict(results, lidar_frames=[dict(scan, lidar2ref=mounted)]))['depth'][0].max() == 5
    path.write_bytes(sweep.tobytes()[:-4])
    with pytest.raises(ValueError, match='s.bin. has 28 bytes'):
        LoadDepthFromLidar()(results)
    with pytest.raises(FileNotFoundError, match=r"LiDAR sweep of frame t0.*data_prefix\['pts'\]"):
        LoadDepthFromLidar()(dict(results, lidar_frames=[dict(scan, lidar_path=str(tmp_path / 'no.bin'))]))
    with pytest.raises(FileNotFoundError, match=r"frame t0.*data_prefix\['pts'\]"):
        LoadDepthFromLidar()(dict(results, lidar_frames=[]))
    with pytest.raises(ValueError, match='got radius=-1, point_dims=4'):
        LoadDepthFromLidar(radius=-1)


def test_views_of_other_frames_take_their_own_sweep(results, tmp_path):
    scans = []
    for offset, distance in ((0, 4.0), (-1, 5.0)):
        path = tmp_path / f'{offset}.bin'
        path.write_bytes(np.array([[distance, 0.0, 0.0, 0.0]], dtype='<f4').tobytes())
        # a metre further back, where the vehicle was
        lidar2ref = np.eye(4)
        lidar2ref[0, 3] = offset
        scans.append(dict(frame=offset, token='t', lidar_path=str(path), lidarseg_path='', lidar2ref=lidar2ref))
    results.update(img=results['img'] * 3, frame=np.array([0, -1, 1]), lidar_frames=scans)
    back = FORWARD.copy()
    back[2, 3] = 1.0
    results.update(ref2cam=np.stack([FORWARD, back, FORWARD]), cam2img=np.stack([CAM2IMG] * 3))
    depth = LoadDepthFromLidar(radius=0)(results)['depth']
    # frame 1 has no sweep of its own
    assert [float(image.max()) for image in depth] == [4, 5, 4]
    depth = LoadDepthFromLidar(radius=0, key_frame_only=True)(results)['depth']
    assert [float(image.max()) for image in depth] == [4, 0, 0] and depth[1].shape == depth[0].shape


def test_lidar_depth_behind_a_resize_keeps_every_point(results, tmp_path):
    # on the original image in columns 11 and 17, row 7
    sweep = np.array([[4.0, 0.2, 0.2, 0.5], [2.0, -1.1, 0.1, 0.5]], dtype='<f4')
    (tmp_path / 's.bin').write_bytes(sweep.tobytes())
    scan = dict(frame=0, token='t0', lidar_path=str(tmp_path / 's.bin'), lidarseg_path='', lidar2ref=np.eye(4))
    results.update(lidar_frames=[scan], warp=np.eye(3)[None])
    random.seed(0)
    resize = ResizeCropFlipImages((12, 8), True, resize_lim=(0.5, 0.5), rand_flip=True)
    small = LoadDepthFromLidar(radius=0)(resize(dict(results, img=list(results['img']))))
    flipped = small['warp'][0, 0, 0] < 0
    columns = {11 - 5, 11 - 8} if flipped else {5, 8}
    assert {tuple(i) for i in np.argwhere(small['depth'][0])} == {(3, column) for column in columns}
    before = LoadDepthFromLidar(radius=0)(dict(results))
    assert np.count_nonzero(before['depth'][0]) == 2


def test_options_show_in_the_description():
    assert 'radius=3' in repr(LoadDepthFromLidar(radius=3)) and 'backend_args=None' in repr(LoadDepthMaps())
