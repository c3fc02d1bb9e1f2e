"""The attention against its formula, written densely over all cameras."""

import pytest
import torch
import torch.nn.functional as F
from tiny_surroundocc import randomize

from projects.occ.models.layers import CameraRebatch
from projects.surroundocc.attention import VolumeCrossAttention, VolumeDeformableAttention

BATCH, CAMS, QUERIES, DIMS, HEADS, POINTS, SIZE = 2, 3, 20, 16, 4, 3, (5, 7)


def dense(attention, query, tokens, positions, seen):
    """Every camera for every query; those that do not see it get weight 0."""
    deform = attention.deformable_attention
    h, w = SIZE
    weights = deform.attention_weights(query).view(BATCH, QUERIES, HEADS, POINTS).softmax(-1)
    offsets = deform.sampling_offsets(query).view(BATCH, QUERIES, HEADS, POINTS, 2)
    value = deform.value_proj(tokens).view(BATCH, CAMS, h, w, HEADS, DIMS // HEADS)
    out = torch.zeros(BATCH, QUERIES, DIMS)
    for b in range(BATCH):
        for n in range(CAMS):
            per_head = []
            for m in range(HEADS):
                location = positions[b, n, :, None] + offsets[b, :, m] / torch.tensor([w, h])
                image = value[b, n, :, :, m].permute(2, 0, 1)[None]
                sampled = F.grid_sample(image, 2 * location[None] - 1, align_corners=False)[0]  # (C/M, Q, K)
                per_head.append((sampled * weights[b, :, m]).sum(-1).T)
            out[b] += seen[b, n, :, None] * torch.cat(per_head, dim=-1)
    return attention.output_proj(out / seen.sum(1).clamp(min=1)[..., None]) + query


@pytest.fixture
def attention():
    return randomize(VolumeCrossAttention(DIMS, num_heads=HEADS, num_points=POINTS))


@pytest.fixture
def inputs():
    query, tokens = torch.randn(BATCH, QUERIES, DIMS), torch.randn(BATCH * CAMS, SIZE[0] * SIZE[1], DIMS)
    return query, tokens, torch.rand(BATCH, CAMS, QUERIES, 2)


def run(attention, query, tokens, positions, seen):
    rebatch = CameraRebatch(seen)
    return attention(query, tokens, rebatch.gather_per_camera(positions), SIZE, rebatch)


@torch.no_grad()
def test_equals_the_dense_formula_with_other_visibility_per_sample(attention, inputs):
    seen = torch.rand(BATCH, CAMS, QUERIES) < 0.4
    assert (seen.sum(1) == 0).any() and (seen.sum(1) > 1).any() and not torch.equal(seen[0], seen[1])
    torch.testing.assert_close(run(attention, *inputs, seen), dense(attention, *inputs, seen), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_unseen_queries_get_the_bias(attention, inputs):
    """Also if no camera sees any query."""
    out = run(attention, *inputs, torch.zeros(BATCH, CAMS, QUERIES, dtype=torch.bool))
    torch.testing.assert_close(out, inputs[0] + attention.output_proj.bias)


def test_start_values():
    attention = VolumeDeformableAttention(16, num_heads=8, num_points=2)
    attention.init_weights()
    assert (attention.sampling_offsets.weight == 0).all() and (attention.attention_weights.weight == 0).all()
    bias = attention.sampling_offsets.bias.view(8, 2, 2)
    torch.testing.assert_close(bias[0], torch.tensor([[1.0, 0], [2, 0]]))
    torch.testing.assert_close(bias[1], torch.tensor([[1.0, 1], [2, 2]]))
    torch.testing.assert_close(bias[6], torch.tensor([[0.0, -1], [0, -2]]), atol=1e-6, rtol=0)


def test_wrong_number_of_heads():
    with pytest.raises(ValueError, match='num_heads must divide .* got 3 heads for 16 channels'):
        VolumeDeformableAttention(16, num_heads=3)
