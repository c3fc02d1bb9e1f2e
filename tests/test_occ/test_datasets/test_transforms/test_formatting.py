import numpy as np
import pytest
import torch

from projects.occ.datasets import PackOccInputs


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    return dict(
        img=[rng.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(2)],
        img_wh=np.array([[6.0, 4.0]] * 2),
        ori_img_wh=np.array([[12.0, 8.0]] * 2),
        ref2img=rng.normal(size=(2, 4, 4)),
        ref2cam=rng.normal(size=(2, 4, 4)),
        cam2img=rng.normal(size=(2, 3, 3)),
        lidar2ego=np.eye(4),
        ego2global=rng.normal(size=(4, 4)) * 1000,
        cam_names=['CAM_A', 'CAM_B'],
        img_paths=['a.jpg', 'b.jpg'],
        token='t0',
        scene_name='scene-0001',
        frame_idx=3,
        timestamp=1.5,
        lidar_path='l.bin',
    )


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_images_are_stacked_channels_first(results, dtype):
    results['img'] = [image.astype(dtype) for image in results['img']]
    packed = PackOccInputs()(results)
    image = packed['inputs']['img']
    assert image.shape == (2, 3, 4, 6) and image.is_contiguous()
    assert image.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    assert torch.equal(image[1, 2], torch.from_numpy(results['img'][1][..., 2]))
    assert set(packed) == {'inputs', 'data_samples'}


def test_labels_are_packed_only_if_loaded(results):
    sample = PackOccInputs()(dict(results))['data_samples']
    assert sample.keys() == []
    results.update(gt_occ=np.full((2, 2, 2), 3, np.uint8), mask_camera=np.ones((2, 2, 2), bool))
    sample = PackOccInputs()(results)['data_samples']
    assert sorted(sample.keys()) == ['gt_occ', 'mask_camera']
    assert sample.gt_occ.dtype == torch.uint8 and sample.mask_camera.dtype == torch.bool


def test_poses_stay_double_and_extra_keys_are_kept(results):
    sample = PackOccInputs(extra_meta_keys=('timestamp',))(results)['data_samples']
    assert sample.timestamp == 1.5
    assert np.array_equal(sample.ego2global, results['ego2global']) and sample.ego2global.dtype == np.float64
    assert sample.ref2img.dtype == np.float32
    assert 'timestamp' not in PackOccInputs()(results)['data_samples']


def test_images_of_different_size_are_refused(results):
    results['img'][1] = results['img'][1][:3]
    with pytest.raises(
        ValueError, match=r"frame t0: images of one frame must have one size.*'CAM_B': \(6, 3\).*ResizeCropFlipImages"
    ):
        PackOccInputs()(results)


def test_views_of_other_frames_are_packed_for_the_network_alone(results):
    for key in ('img', 'cam_names', 'img_paths'):
        results[key] = results[key] * 2
    for key in ('img_wh', 'ori_img_wh', 'ref2img', 'ref2cam', 'cam2img'):
        results[key] = np.concatenate([results[key], results[key] + 1])
    results.update(frame=np.array([0, 0, -1, -1]), view_missing=np.array([False, False, False, True]))
    results['warp'] = np.random.default_rng(1).normal(size=(4, 3, 3))
    results['originals'] = [np.arange((4 + i) * 6 * 3, dtype=np.uint8).reshape(4 + i, 6, 3) for i in range(4)]
    packed = PackOccInputs()(results)
    inputs, sample = packed['inputs'], packed['data_samples']
    assert inputs['img'].shape == (4, 3, 4, 6) and inputs['view_missing'].tolist() == [False, False, False, True]
    cameras = inputs['cameras']
    assert cameras.frame.tolist() == [0, 0, -1, -1] and cameras.at(-1).sizes.tolist() == [[[13, 9]] * 2]
    assert cameras.warp.dtype == torch.float64 and np.array_equal(cameras.warp[0].numpy(), results['warp'])
    assert np.array_equal(cameras.ref2cam[0].numpy(), results['ref2cam'])
    for image, original in zip(inputs['originals'], results['originals']):
        assert image.dtype == torch.uint8 and np.array_equal(image.numpy().transpose(1, 2, 0)[..., ::-1], original)
    # pictures and metrics are about the key frame
    assert sample.cam_names == ['CAM_A', 'CAM_B'] and sample.ref2cam.shape == (2, 4, 4) and len(sample.img_paths) == 2


def test_what_is_not_known_is_not_packed(results):
    for key in ('lidar2ego', 'ego2global', 'lidar_path', 'img_paths', 'scene_name', 'frame_idx'):
        del results[key]
    sample = PackOccInputs()(results)['data_samples']
    assert set(sample.metainfo_keys()) == {'token', 'cam_names', 'ref2img', 'img_wh', 'ref2cam', 'cam2img', 'ori_img_wh'}
