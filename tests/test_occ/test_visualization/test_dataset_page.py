"""Pages of what a pipeline delivers."""

import numpy as np

from projects.occ.structures import VoxelGrid
from projects.occ.visualization import CameraImages, VoxelPainter
from projects.occ.visualization.dataset_page import SEEN, class_counts, dataset_figures
from projects.occ.visualization.view_cameras import look_at, project_matrix

GRID = VoxelGrid((-4, -4, -1, 4, 4, 1), 1.0, (8, 8, 2), 'ego', 2, class_names=('car', 'driveable_surface', 'free'))


def count(page, color):
    return int((page == np.asarray(color, np.uint8)).all(-1).sum())


def label():
    gt = np.full((8, 8, 2), 2, np.uint8)
    gt[:, :, 0], gt[6, 3:5, 1], gt[0, 0, 0] = 1, 0, 255
    return gt


def test_counts():
    counts = class_counts(label())
    assert counts.shape == (256,) and counts[[0, 1, 2, 255]].tolist() == [2, 63, 62, 1] and counts.sum() == 128


def test_pages():
    ref2img = project_matrix(look_at((0, 0, 1), (4, 0, 0.5)), np.array([[60.0, 0, 48], [0, 60, 27], [0, 0, 1]]))
    cameras = CameraImages([np.full((54, 96, 3), 90, np.uint8)], ref2img[None], ['CAM_FRONT'])
    mask = np.zeros((8, 8, 2), bool)
    mask[4:] = True  # the half ahead
    pages = dataset_figures(VoxelPainter(GRID), cameras, label(), {'mask_camera': mask}, panel_width=160)
    assert list(pages) == ['input', 'label']
    assert count(pages['input'], (90, 90, 90)) > 96 * 54
    low, high = SEEN.paint(np.array([0.0, 1.0]), np.array([True, True]))
    assert count(pages['label'], low) >= 160 * 80 and count(pages['label'], high) >= 160 * 80
    rows = np.argwhere((pages['label'] == high).all(-1))[:, 0], np.argwhere((pages['label'] == low).all(-1))[:, 0]
    assert np.median(rows[0]) < np.median(rows[1])  # ahead is up
    without = dataset_figures(VoxelPainter(GRID), cameras, None, {})
    assert list(without) == ['input']
    assert count(dataset_figures(VoxelPainter(GRID), None, label(), {}, panel_width=160)['label'], high) == 0
