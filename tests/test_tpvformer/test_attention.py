"""The attentions against dense formulas without rebatching, and their start values."""

import pytest
import torch
from torch.nn import functional as F

from projects.occ.models.layers import CameraRebatch
from projects.tpvformer.attention import TPVDeformableAttention3D, TPVHybridAttention, TPVImageCrossAttention
from projects.tpvformer.planes import plane_reference_points

C, M = 16, 4
SHAPES = [(3, 5), (2, 3)]


def randomized(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module.eval()


def sample(value_map, locations):
    """Bilinear values (c, Q, P) of one head's map (c, h, w) at (Q, P, 2)."""
    return F.grid_sample(value_map[None], 2 * locations[None] - 1, align_corners=False)[0]


def test_hybrid_attention_is_the_mean_of_two_copies():
    attention = randomized(TPVHybridAttention(C, num_heads=M, num_points=4, num_copies=2))
    size = (3, 4)
    query, pos = torch.randn(2, 12, C), torch.randn(2, 12, C)
    reference = plane_reference_points('hw', (4, 3, 2))
    out = attention(query, pos, reference, size)

    steering = torch.cat((query, query + pos), -1)
    value = attention.value_proj(query)
    offsets = attention.sampling_offsets(steering).view(2, 12, M, 2, 4, 2)
    weights = attention.attention_weights(steering).view(2, 12, M, 2, 4).softmax(-1)
    expected = []
    for b in range(2):
        heads = []
        for m in range(M):
            value_map = value[b].T.reshape(M, C // M, 3, 4)[m]
            copies = []
            for k in range(2):
                locations = reference[0] + offsets[b, :, m, k] / torch.tensor([4.0, 3.0])
                copies.append((sample(value_map, locations) * weights[b, :, m, k]).sum(-1).T)
            heads.append((copies[0] + copies[1]) / 2)
        expected.append(torch.cat(heads, -1))
    torch.testing.assert_close(out, attention.output_proj(torch.stack(expected)) + query, atol=1e-5, rtol=1e-5)


def image_case(floor=False):
    attention = randomized(
        TPVImageCrossAttention(C, num_heads=M, num_levels=2, num_points=(4, 8), num_anchors=(2, 4), floor_sampling_offset=floor)
    )
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(2, 13, C, generator=generator)
    tokens = torch.randn(4, 21, C, generator=generator)
    positions = [torch.rand(2, 2, 7, 2, 2, generator=generator), torch.rand(2, 2, 6, 4, 2, generator=generator)]
    seen = [torch.rand(2, 2, q, generator=generator) < 0.5 for q in (7, 6)]
    seen[0][:, :, 3] = False  # one query that no camera sees
    return attention, query, tokens, positions, seen


def run(attention, query, tokens, positions, seen):
    rebatches = [CameraRebatch(s) for s in seen]
    packed = [r.gather_per_camera(p) for r, p in zip(rebatches, positions)]
    return attention(query, tokens, SHAPES, packed, rebatches)


@pytest.mark.parametrize('floor', [False, True])
def test_image_attention_equals_the_dense_formula(floor):
    attention, query, tokens, positions, seen = image_case(floor)
    out = run(attention, query, tokens, positions, seen)

    inner = attention.deformable_attention
    value = inner.value_proj(tokens).view(2, 2, 21, C)
    slots = []
    for plane, part in enumerate(query.split((7, 6), dim=1)):
        points, anchors = inner.num_points[plane], inner.num_anchors[plane]
        offsets = inner.sampling_offsets[plane](part).view(2, -1, M, 2, points, 2)
        weights = inner.attention_weights[plane](part).view(2, -1, M, 2 * points).softmax(-1).view(2, -1, M, 2, points)
        slot = torch.zeros_like(part)
        for b in range(2):
            for n in range(2):
                heads = []
                for m in range(M):
                    total = 0
                    for level, (h, w) in enumerate(SHAPES):
                        start = 0 if level == 0 else 15
                        value_map = value[b, n, start : start + h * w].T.reshape(M, C // M, h, w)[m]
                        uv = positions[plane][b, n].repeat_interleave(points // anchors, dim=1)
                        where = uv + offsets[b, :, m, level] / torch.tensor([float(w), float(h)])
                        where = where - where.floor() if floor else where
                        total = total + (sample(value_map, where) * weights[b, :, m, level]).sum(-1).T
                    heads.append(total)
                slot[b] = slot[b] + torch.cat(heads, -1) * seen[plane][b, n, :, None]
        slots.append(slot / seen[plane].sum(1).clamp(min=1).unsqueeze(-1))
    expected = attention.output_proj(torch.cat(slots, 1)) + query
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_unseen_queries_receive_the_bias_alone():
    attention, query, tokens, positions, seen = image_case()
    out = run(attention, query, tokens, positions, seen)
    torch.testing.assert_close(out[:, 3], query[:, 3] + attention.output_proj.bias)


def test_no_camera_sees_anything():
    attention, query, tokens, positions, seen = image_case()
    out = run(attention, query, tokens, positions, [torch.zeros_like(s) for s in seen])
    torch.testing.assert_close(out, query + attention.output_proj.bias)
    out.sum().backward()
    assert all(p.grad is not None for p in attention.parameters())  # distributed training waits for every gradient


def test_start_offsets_of_the_hybrid_attention():
    attention = TPVHybridAttention(C, num_heads=8, num_points=4, num_copies=2)
    attention.init_weights()
    bias = attention.sampling_offsets.bias.view(8, 2, 4, 2)
    torch.testing.assert_close(bias[3, 1], torch.tensor([[-1.0, 1], [-2, 2], [-3, 3], [-4, 4]]))
    assert attention.sampling_offsets.weight.abs().max() == 0
    assert attention.attention_weights.weight.abs().max() == attention.attention_weights.bias.abs().max() == 0
    bound = (6 / (C + C)) ** 0.5
    for linear in (attention.value_proj, attention.output_proj):
        assert 0.8 * bound < linear.weight.abs().max() <= bound and linear.bias.abs().max() == 0


def test_start_offsets_of_the_image_attention_restart_at_every_anchor():
    attention = TPVDeformableAttention3D(C, num_heads=8, num_levels=3, num_points=(8, 6), num_anchors=(4, 2))
    attention.init_weights()
    hw = attention.sampling_offsets[0].bias.view(8, 3, 4, 2, 2)
    torch.testing.assert_close(hw[6, 2, 3], torch.tensor([[0.0, -1], [0, -2]]), atol=1e-6, rtol=0)
    other = attention.sampling_offsets[1].bias.view(8, 3, 2, 3, 2)
    torch.testing.assert_close(other[0, 0, 1], torch.tensor([[1.0, 0], [2, 0], [3, 0]]), atol=1e-6, rtol=0)


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match='self_attn.num_heads must divide embed_dims 16, got 3'):
        TPVHybridAttention(16, num_heads=3)
    with pytest.raises(ValueError, match=r'num_points \(8, 6\) must be multiples of num_anchors \(4, 4\)'):
        TPVDeformableAttention3D(16, 4, 1, (8, 6), (4, 4))
