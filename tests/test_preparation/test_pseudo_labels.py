"""Pseudo labels: votes, ties, free cells, moving classes, depth edges, and a wall seen by a camera."""

import numpy as np
import pytest

from projects.occ.structures import VoxelGrid
from projects.preparation.pseudo_labels import VotingPoints, make_pseudo_label, pixel_points

GRID = VoxelGrid((0, -2, -1, 8, 2, 1), 0.5, (16, 8, 4), 'ego', 3, class_names=('wall', 'tree', 'car', 'free'))
ORIGIN = np.array([0.1, 0.1, 0.1])
# looks along x
CAM2REF = np.array([[0, 0, 1, 0.1], [-1, 0, 0, 0.1], [0, -1, 0, 0.1], [0, 0, 0, 1.0]])


def points(*rows, key=True):
    rows = np.array(rows, dtype=float)
    return VotingPoints(rows[:, :3], rows[:, 3].astype(int), ORIGIN, key)


def test_votes_free_cells_and_what_nobody_saw():
    label = make_pseudo_label([points((6.2, 0.1, 0.1, 1), (6.3, 0.1, 0.1, 1), (6.2, 0.2, 0.1, 0))], GRID)
    assert label[12, 4, 2] == 1
    assert (label[0:11, 4, 2] == 3).all() and (label[13:, 4, 2] == 255).all()
    assert (label[:, 0] == 255).all()


def test_ties_go_to_the_smaller_id_and_few_votes_to_nobody():
    rows = [(6.2, 0.1, 0.1, 1), (6.3, 0.1, 0.1, 0)]
    assert make_pseudo_label([points(*rows)], GRID)[12, 4, 2] == 0
    assert make_pseudo_label([points(*rows)], GRID, min_votes=3)[12, 4, 2] == 255
    # what others look through is free then
    far = points((7.8, 0.1, 0.1, 0))
    assert make_pseudo_label([points(*rows), far], GRID, min_votes=3)[12, 4, 2] == 3
    assert make_pseudo_label([points(*rows), far], GRID)[12, 4, 2] == 0


def test_moving_classes_count_in_their_own_frame_alone():
    car = (6.2, 0.1, 0.1, 2)
    assert make_pseudo_label([points(car)], GRID, dynamic=[2])[12, 4, 2] == 2
    other = make_pseudo_label([points(car, key=False)], GRID, dynamic=[2])
    assert (other == 255).all()
    assert make_pseudo_label([points(car, key=False)], GRID)[12, 4, 2] == 2


def test_points_without_a_class_make_free_cells_only():
    label = make_pseudo_label([points((6.2, 0.1, 0.1, 255))], GRID)
    assert label[12, 4, 2] == 255 and (label[:11, 4, 2] == 3).all()


def test_pixels_at_depth_edges_are_dropped():
    depth = np.full((4, 6), 4.0)
    depth[:, 3:] = 6.0
    depth[0, 0] = 0
    depth[3, 5] = np.nan
    found = pixel_points(depth, np.zeros((4, 6), int), np.array([[4, 0, 3], [0, 4, 2], [0, 0, 1.0]]), CAM2REF)
    # both columns at the step, the two unknown pixels
    assert len(found.points) == 4 * 6 - 2 * 4 - 2
    depth[:, 3:] = 4.3
    assert len(pixel_points(depth, np.zeros((4, 6), int), np.eye(3), CAM2REF).points) == 23
    assert len(pixel_points(np.full((4, 6), 4.0), np.zeros((4, 6), int), np.eye(3), CAM2REF, stride=2).points) == 6


def test_a_wall_that_a_camera_sees():
    cam2img = np.array([[40, 0, 20], [0, 40, 10], [0, 0, 1.0]])
    found = pixel_points(np.full((20, 40), 5.1), np.zeros((20, 40), int), cam2img, CAM2REF)
    assert np.allclose(found.points[:, 0], 5.2) and np.allclose(found.origin, ORIGIN)
    # the pixel left of the middle looks to the left, which is y
    assert found.points[0, 1] > 0.1 > found.points[39, 1] and found.points[0, 2] > found.points[-1, 2]
    label = make_pseudo_label([found], GRID)
    assert (label[10, 1:7, 1:3] == 0).all() and (label[2:9, 4, 2] == 3).all() and (label[11:] == 255).all()


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match='shape'):
        pixel_points(np.zeros((2, 2)), np.zeros((3, 2)), np.eye(3), CAM2REF)
    with pytest.raises(ValueError, match='class id 7'):
        make_pseudo_label([points((1, 0, 0, 7))], GRID)
    with pytest.raises(ValueError, match='min_votes'):
        make_pseudo_label([], GRID, min_votes=0)
    assert (make_pseudo_label([], GRID) == 255).all()
