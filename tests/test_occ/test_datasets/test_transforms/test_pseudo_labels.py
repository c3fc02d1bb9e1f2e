"""Class maps of images: three file formats, the table of ids, and damage."""

import cv2
import numpy as np
import pytest

from projects.occ.datasets.transforms import LoadPseudoLabels

STORED = np.array([[-1, 0, 1, 2], [15, 16, 6, 3], [-1, 10, 11, 9]], np.int8)
OCC3D = np.array([[-1, 0, 4, 11], [8, 17, 16, 3], [-1, 7, 15, 1]])


def item(path):
    return dict(token='f3', cam_names=['CAM_FRONT'], pseudo_paths=[str(path)], ori_img_wh=np.array([[4, 3]]))


def test_grounded_sam(tmp_path):
    STORED.tofile(tmp_path / 'x_mask.bin')
    labels = LoadPseudoLabels()(item(tmp_path / 'x_mask.bin'))['pseudo_labels']
    assert np.array_equal(labels[0], OCC3D)
    # the original: -1 picks the last entry of its table
    labels = LoadPseudoLabels(unlabelled=17)(item(tmp_path / 'x_mask.bin'))['pseudo_labels']
    assert np.array_equal(labels[0], np.where(OCC3D == -1, 17, OCC3D))


def test_arrays_and_images(tmp_path):
    np.save(tmp_path / 'x.npy', STORED.astype(np.int64))
    assert np.array_equal(LoadPseudoLabels()(item(tmp_path / 'x.npy'))['pseudo_labels'][0], OCC3D)
    picture = np.array([[0, 1, 2, 255], [2, 1, 0, 255], [0, 0, 0, 0]], np.uint8)
    cv2.imwrite(str(tmp_path / 'x.png'), picture)
    labels = LoadPseudoLabels(class_map=[5, -1, 3], ignore=[255])(item(tmp_path / 'x.png'))['pseudo_labels'][0]
    assert labels.tolist() == [[5, -1, 3, -1], [3, -1, 5, -1], [5, 5, 5, 5]]
    labels = LoadPseudoLabels(class_map=None, ignore=[255])(item(tmp_path / 'x.png'))['pseudo_labels'][0]
    assert labels.tolist() == [[0, 1, 2, -1], [2, 1, 0, -1], [0, 0, 0, 0]]


def test_damage_names_frame_and_file(tmp_path):
    load, path = LoadPseudoLabels(), tmp_path / 'x_mask.bin'
    with pytest.raises(FileNotFoundError, match='f3.*x_mask.bin'):
        load(item(path))
    STORED[:2].tofile(path)
    with pytest.raises(ValueError, match='8 bytes'):
        load(item(path))
    np.full((3, 4), 40, np.int8).tofile(path)
    with pytest.raises(ValueError, match='40'):
        load(item(path))
    (tmp_path / 'x.npy').write_bytes(b'no array')
    with pytest.raises(ValueError, match='x.npy'):
        load(item(tmp_path / 'x.npy'))
    np.save(tmp_path / 'x.npy', np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match='float32'):
        load(item(tmp_path / 'x.npy'))
    (tmp_path / 'x.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='x.png'):
        load(item(tmp_path / 'x.png'))
    with pytest.raises(ValueError, match='pseudo_paths'):
        load(dict(token='f3'))
    for bad in ('cityscapes', [[1]], [-2]):
        with pytest.raises(ValueError, match='class_map'):
            LoadPseudoLabels(class_map=bad)
