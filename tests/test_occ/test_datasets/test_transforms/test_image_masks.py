"""Masks of the own car: both conventions, and damage."""

import cv2
import numpy as np
import pytest

from projects.occ.datasets.transforms import LoadSelfOcclusionMasks


def item(tmp_path, *values):
    paths = []
    for number, value in enumerate(values):
        paths.append(str(tmp_path / f'{number}.png'))
        cv2.imwrite(paths[-1], value)
    names = [f'CAMERA_{i}' for i in range(len(values))]
    return dict(token='f3', cam_names=names, mask_paths=paths, ori_img_wh=np.array([[6, 4]] * len(values)))


def test_both_conventions(tmp_path):
    car = np.zeros((4, 6), np.uint8)
    car[3:] = 255
    masks = LoadSelfOcclusionMasks('zero')(item(tmp_path, car, np.zeros_like(car)))['image_masks']
    assert masks[0][:3].all() and not masks[0][3:].any() and masks[1].all()
    masks = LoadSelfOcclusionMasks('nonzero')(item(tmp_path, car))['image_masks']
    assert masks[0][3:].all() and not masks[0][:3].any()


def test_damage_names_frame_camera_and_file(tmp_path):
    load = LoadSelfOcclusionMasks('zero')
    with pytest.raises(ValueError, match='f3.*valid'):
        load(item(tmp_path, np.full((4, 6), 255, np.uint8)))
    with pytest.raises(ValueError, match='CAMERA_0.*f3'):
        load(item(tmp_path, np.zeros((3, 6), np.uint8)))
    broken = item(tmp_path, np.zeros((4, 6), np.uint8))
    (tmp_path / '0.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='0.png'):
        load(broken)
    (tmp_path / '0.png').unlink()
    with pytest.raises(FileNotFoundError, match='0.png'):
        load(broken)
    with pytest.raises(ValueError, match='mask_paths'):
        load(dict(token='f3'))
    with pytest.raises(ValueError, match='valid'):
        LoadSelfOcclusionMasks('white')
