"""Refinement of logits by rays: a wall that is moved, what no ray tells, limits of time and steps, refusals."""

import time

import pytest
import torch

from projects.occ.structures import OccBatch, OccPrediction, Rays, VoxelGrid
from projects.rendering import (
    DensityField,
    MarchRenderer,
    MeasuredRays,
    RayQueries,
    RayQueryTarget,
    RayTarget,
    RenderSupervision,
)
from projects.rendering.refinement import refine_logits

GRID = VoxelGrid((0, -3.2, -1.6, 12.8, 3.2, 1.6), 0.4, (32, 16, 8), 'ego', 1, class_names=('wall', 'free'))


def supervision():
    return RenderSupervision(
        DensityField(GRID, source='logits'),
        MeasuredRays(),
        MarchRenderer(GRID, form='nerf'),
        RayTarget(GRID, labels=False),
        dict(depth=dict(function='silog', view='ray', quantity='depth', options=dict(balance=0.0))),
    )


def batch(distance, height=0.2):
    """Rays through every row of the grid that meet a wall at ``distance``."""
    y, z = torch.meshgrid(torch.linspace(-2.8, 2.8, 40), torch.linspace(-1.2, height, 10), indexing='ij')
    points = torch.stack([torch.full_like(y, distance), y, z], -1).view(1, -1, 3)
    depth = points.norm(dim=-1)
    ones = torch.ones_like(depth)
    rays = Rays(torch.zeros_like(points), points / depth.unsqueeze(-1), ones, ones > 0, depth=depth)
    return OccBatch(cameras=None, rays=rays, tokens=['a'])


def wall(*cells):
    labels = torch.ones(1, *GRID.shape, dtype=torch.long)
    labels[:, list(cells)] = 0
    return torch.where(torch.stack([labels == 0, labels == 1], 1), 1.0, -1.0)


def queries():
    terms = dict(points=dict(function='point_cross_entropy', view='ray', quantity='opacity'))
    return RenderSupervision(
        DensityField(GRID, source='logits'), MeasuredRays(), RayQueries(GRID), RayQueryTarget(GRID, labels=False), terms
    )


def test_a_wall_comes_to_where_it_was_measured():
    # the network says 6.8 m, the LiDAR 8 m
    found = refine_logits(wall(17), batch(8.0), queries(), steps=60, rate=0.2, anchor=0.1)
    assert len(found.losses) == 60 and found.losses[-1] < 0.2 * found.losses[0]
    occupied = (found.logits.argmax(1) == 0)[0, :, 6:10, 3:5].float().mean((1, 2))
    assert occupied[:18].max() == 0 and occupied[20] == 1
    # above all rays nothing has changed
    assert (found.logits.argmax(1) == wall(17).argmax(1))[:, :, :, 6:].all()


def test_rendered_depth_comes_to_the_measured_one():
    field, render, rays = DensityField(GRID, source='logits'), MarchRenderer(GRID, form='nerf'), batch(8.0).rays
    found = refine_logits(wall(17), batch(8.0), supervision(), steps=30, rate=0.2, anchor=0.1)

    def error(logits):
        return (render(field(OccPrediction([logits])), rays).depth / rays.depth - 1).abs().mean().item()

    assert error(found.logits) < 0.5 * error(wall(17))


def test_what_agrees_stays():
    found = refine_logits(wall(20), batch(8.0), supervision(), steps=20, anchor=10.0)
    assert (found.logits.argmax(1) == wall(20).argmax(1)).float().mean() > 0.99


def test_limits_and_what_is_watched():
    seen = []
    given = wall(17)
    found = refine_logits(
        given, batch(8.0), supervision(), steps=3, watch=lambda step, logits: seen.append((step, logits.clone()))
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3] and torch.equal(seen[0][1], given)
    assert torch.equal(seen[3][1], found.logits)
    assert len(refine_logits(given, batch(8.0), supervision(), steps=50, seconds=0.0).losses) == 1
    assert torch.equal(refine_logits(given, batch(8.0), supervision(), steps=0).logits, given)
    slow = refine_logits(given, batch(8.0), queries(), steps=4, seconds=5.0, watch=lambda step, logits: time.sleep(2))
    assert len(slow.losses) == 4 and slow.seconds < 5
    with pytest.raises(ValueError, match='rate'):
        refine_logits(given, batch(8.0), supervision(), rate=0)
