"""Rendered depth against measured depth: a wall at a known place, and errors."""

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS

import projects.rendering.registered_parts  # noqa: F401  registers the fields
from projects.occ.evaluation import RenderedDepthMetric
from projects.occ.structures import VoxelGrid

GRID = dict(
    point_cloud_range=(0, -16, -16, 16, 16, 16),
    voxel_size=0.5,
    shape=(32, 64, 64),
    frame='ego',
    free_index=1,
    class_names=('wall', 'free'),
)
# looks along x
AHEAD = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def sample(wall=10.0, measured=10.25, grid=GRID):
    labels = np.full(grid['shape'], 1, dtype=np.uint8)
    labels[int(wall / 0.5)] = 0
    rows = [(u, v, measured) for u in (5, 20, 35) for v in (4, 15, 27)]
    return dict(
        token='a',
        pred_occ=torch.from_numpy(labels),
        ref2cam=np.stack([AHEAD] * 2),
        cam2img=np.stack([np.array([[30, 0, 20.0], [0, 30, 15.0], [0, 0, 1]])] * 2),
        ori_img_wh=np.array([[40, 30]] * 2),
        cam_names=['left', 'right'],
        depth_pixels=[np.array(rows, np.float32), np.array(rows[:1], np.float32)],
    )


@pytest.mark.parametrize('reduction', [1, 2])
def test_a_wall_is_where_its_voxels_are(reduction):
    metric = METRICS.build(dict(type='RenderedDepthMetric', grid=GRID, reduction=reduction))
    metric.process({}, [sample(), sample(wall=12.0)])
    found = metric.evaluate(2)
    assert found['depth/abs_rel'] == pytest.approx((0 + 2 / 10.25) / 2, abs=5e-3)
    assert found['depth/rmse'] == pytest.approx(1, abs=0.05)
    assert list(found['depth/depth_per_camera']) == ['left', 'right']


def test_where_nothing_is_depth_is_the_limit():
    empty = sample()
    empty['pred_occ'] = torch.ones_like(empty['pred_occ'])
    maps = RenderedDepthMetric(GRID, max_depth=50.0).depth_maps(empty)
    assert len(maps) == 2 and maps[0].shape == (30, 40) and (maps[0] == 50).all()


def test_what_is_missing_or_does_not_fit_is_named():
    metric = RenderedDepthMetric(GRID)
    for key in ('pred_occ', 'ref2cam', 'depth_pixels'):
        broken = sample()
        del broken[key]
        with pytest.raises(ValueError, match=key):
            metric.process({}, [broken])
    with pytest.raises(ValueError, match='shape'):
        metric.process({}, [dict(sample(), pred_occ=torch.zeros(2, 2, 2, dtype=torch.uint8))])
    with pytest.raises(ValueError, match='reduction'):
        RenderedDepthMetric(GRID, reduction=0.5)
    assert VoxelGrid.build(GRID) == metric.grid


@pytest.mark.parametrize('contraction', [None, dict(point_cloud_range=(0, -16, -16, 16, 16, 16), shape=(48, 48, 48))])
def test_a_field_is_rendered_as_a_supervision_sees_it(contraction):
    from projects.occ.structures import ContractedGrid

    grid = VoxelGrid.build(GRID)
    lattice = grid if contraction is None else ContractedGrid.build(contraction)
    x = lattice.centers()[..., 0]
    wall = (x > 10) & (x < 12)
    logits = torch.zeros(2, *lattice.shape)
    logits[1] = torch.where(wall, -20.0, 20.0)
    one = sample(measured=10.25)
    one['pred_logits'] = logits if contraction is None else torch.zeros(2, *grid.shape)
    if contraction is not None:
        one['pred_contracted_logits'] = logits
    field = dict(type='FreeLogitField', scale=0.3, contraction=contraction)
    metric = RenderedDepthMetric(GRID, field=field, normalise=False)
    depth = metric.depth_maps(one)[0]
    near = x[wall].min()
    assert float(depth[15, 20]) == pytest.approx(float(near), abs=0.5) and depth.shape == (30, 40)
    # half of the light passes: depth as it is falls short, divided by coverage it does not
    half = dict(one)
    key = 'pred_logits' if contraction is None else 'pred_contracted_logits'
    half[key] = torch.where(logits == -20, -0.0, logits)
    blended, whole = (RenderedDepthMetric(GRID, field=field, normalise=n).depth_maps(half)[0] for n in (False, True))
    assert whole[15, 20] > blended[15, 20]
    with pytest.raises(ValueError, match='keep_logits'):
        metric.depth_maps(sample())
