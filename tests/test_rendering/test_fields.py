import numpy as np
import pytest
import torch

from projects.occ.structures import OccPrediction
from projects.rendering.fields import ClassLogitsField, check_logits


def flat(tensor):
    """(B, C, X, Y, Z) -> numpy (B, N, C)."""
    return tensor.flatten(2).transpose(1, 2).detach().double().numpy()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def decoder_outputs(module, feats):
    """The MLP in numpy: offset, colour, opacity, scaling, rotation before activation."""
    x = flat(feats)
    weights = [p.detach().double().numpy() for p in module.mlp_coarse.parameters()]
    for i, (w, b) in enumerate(zip(weights[::2], weights[1::2])):
        x = x @ w.T + b
        if i < len(weights) // 2 - 1:
            x = np.maximum(x, 0)
    return np.split(x, np.cumsum(module.output_sizes)[:-1], axis=-1)


def of(logits, feats=None):
    return OccPrediction([logits], feats)


def rows(volume):
    """(B, X, Y, Z, ...) -> numpy (B, N, ...)."""
    return volume.flatten(1, 3).detach().numpy()


@pytest.fixture
def build(grid):
    def make(**switches):
        module = ClassLogitsField(grid, 4, **switches)
        for name, p in module.named_parameters():
            torch.nn.init.normal_(p, std=0.6, generator=torch.Generator().manual_seed(len(name)))
        return module

    return make


def test_default_without_features(build, logits):
    field = build()(of(logits))
    assert field.opacity.shape == (2, 8, 8, 4) and field.features.shape == (2, 4, 8, 8, 4)
    # scale and rotation are the renderer's
    assert field.keep is None and field.scales is None and field.quats is None
    assert field.background.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(flat(field.features), softmax(flat(logits)), atol=1e-6)
    p = softmax(flat(logits))[..., 3]
    sharp = np.where(p < 0.5, p**2, 1 - (1 - p) ** 2)
    np.testing.assert_allclose(rows(field.opacity), 1 - sharp, atol=1e-6)


@pytest.mark.parametrize(
    'curve, expected',
    [
        # p = 0, 0.2, just below 0.5, just above 0.5, 0.8, 1
        ('compatible', [1.0, 0.96, 0.75, 0.25, 0.04, 0.0]),
        ('continuous', [1.0, 0.92, 0.5, 0.5, 0.08, 0.0]),
    ],
)
def test_opacity_curve(grid, curve, expected):
    free = torch.tensor([1e-9, 0.2, 0.4999999, 0.5000001, 0.8, 1 - 1e-9], dtype=torch.float64)
    logits = torch.zeros(1, 4, 8, 8, 4, dtype=torch.float64)
    logits[0, 3, 0, 0] = torch.log(free[:4] / (1 - free[:4]) * 3)
    logits[0, 3, 0, 1, :2] = torch.log(free[4:] / (1 - free[4:]) * 3)
    opacities = ClassLogitsField(grid, opacity_curve=curve)(of(logits)).opacity.flatten(1)[0, :6]
    np.testing.assert_allclose(opacities.numpy(), expected, atol=1e-6)


def test_learned_opacity_with_published_switches(build, logits, feats):
    module = build(feat_channels=6)
    field = module(of(logits, feats))
    opacity = decoder_outputs(module, feats)[2]
    np.testing.assert_allclose(rows(field.opacity), sigmoid(opacity[..., 0] - 1), atol=1e-5)
    np.testing.assert_allclose(flat(field.features), softmax(flat(logits)), atol=1e-6)
    assert field.opacity.requires_grad and field.scales is None and field.quats is None


def test_initial_opacity_is_a_shifted_sigmoid(grid, logits, feats):
    module = ClassLogitsField(grid, feat_channels=6)
    np.testing.assert_allclose(rows(module(of(logits, 0 * feats)).opacity), sigmoid(-1.0), atol=1e-6)
    assert all(float(p.detach().abs().max()) == 0 for n, p in module.named_parameters() if n.endswith('bias'))
    bound = (6 / (6 + 15)) ** 0.5
    weight = module.mlp_coarse[4].weight
    assert weight.shape == (15, 6) and 0.5 * bound < float(weight.detach().abs().max()) <= bound


def test_everything_from_the_decoder(build, logits, feats):
    module = build(feat_channels=6, transfer_colors=False, overwrite_scales=False)
    field = module(of(logits, feats))
    _, color, _, scaling, rotation = decoder_outputs(module, feats)
    np.testing.assert_allclose(flat(field.features), softmax(color), atol=1e-5)
    np.testing.assert_allclose(rows(field.scales), 0.63 * sigmoid(scaling - 1) + 0.01, atol=1e-5)
    unit = rotation / np.linalg.norm(rotation, axis=-1, keepdims=True)
    np.testing.assert_allclose(rows(field.quats), unit, atol=1e-5)
    assert field.scales.requires_grad and field.quats.requires_grad


def test_overwrite_rotations(build, logits, feats):
    field = build(feat_channels=6, overwrite_scales=False, overwrite_rotations=True)(of(logits, feats))
    assert field.scales is not None and field.quats is None


def test_transfer_opacity_with_features(build, grid, logits, feats):
    field = build(feat_channels=6, transfer_opacity=True)(of(logits, feats))
    torch.testing.assert_close(field.opacity, ClassLogitsField(grid)(of(logits)).opacity)


def test_overwrite_opacity(build, logits, feats):
    hard = (flat(logits).argmax(-1) != 3).astype(float)
    module = build(feat_channels=6, overwrite_opacity=True)
    field = module(of(logits.requires_grad_(), feats))
    np.testing.assert_array_equal(rows(field.opacity), hard)
    assert not field.opacity.requires_grad
    # the switch of one call wins over the configured one
    assert float(module(of(logits, feats), hard_opacity=False).opacity.detach().std()) > 0.05
    np.testing.assert_array_equal(rows(build()(of(logits), hard_opacity=True).opacity), hard)


def test_overwrite_opacity_reads_the_decoded_colors(build, logits, feats):
    module = build(feat_channels=6, transfer_colors=False, overwrite_opacity=True)
    color = decoder_outputs(module, feats)[1]
    np.testing.assert_array_equal(rows(module(of(logits, feats)).opacity), color.argmax(-1) != 3)


@pytest.mark.parametrize('feat_channels', [None, 6])
def test_mask_elements(build, logits, feats, feat_channels):
    field = build(feat_channels=feat_channels, mask_elements=True)(of(logits, feats))
    np.testing.assert_array_equal(rows(field.keep), flat(logits).argmax(-1) != 3)
    probabilities = flat(field.features)
    assert (probabilities[..., 3] == 0).all()
    np.testing.assert_allclose(probabilities[..., :3], softmax(flat(logits)[..., :3]), atol=1e-6)


def test_decoder_size_and_names(grid):
    names = [f'mlp_coarse.{i}.{kind}' for i in (0, 2, 4) for kind in ('weight', 'bias')]
    large = dict(grid, class_names=tuple(map(str, range(18))), free_index=17)
    module = ClassLogitsField(large, 18, feat_channels=256)
    assert list(module.state_dict()) == names
    assert sum(p.numel() for p in module.parameters()) == 139_037
    small = ClassLogitsField(dict(large, class_names=tuple(map(str, range(19)))), 19, feat_channels=32)
    assert sum(p.numel() for p in small.parameters()) == 3_102
    assert len(ClassLogitsField(grid, feat_channels=6, num_layer=4).mlp_coarse) == 9


def test_gradients_and_checkpointing(build, logits, feats):
    grads = []
    for with_cp in (False, True):
        module = build(feat_channels=6, with_cp=with_cp)
        x, f = logits.clone().requires_grad_(), feats.clone().requires_grad_()
        field = module(of(x, f))
        (field.features.square().sum() + field.opacity.square().sum()).backward()
        grads.append([x.grad, f.grad, *(p.grad for p in module.parameters())])
        # unused decoder outputs get zeros, not None: distributed training sees every parameter
        assert all(grad is not None for grad in grads[-1]) and float(module.mlp_coarse[4].weight.grad[:3].abs().max()) == 0
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_autocast_computes_in_float32(build, logits, feats):
    module = build(feat_channels=6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        field = module(of(logits, feats.bfloat16()))
    expected = module(of(logits, feats.bfloat16().float()))
    assert field.opacity.dtype == field.features.dtype == torch.float32
    torch.testing.assert_close(field.opacity, expected.opacity, rtol=0, atol=0)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_classes=18), r'num_classes=18, but grid.class_names lists 4 classes'),
        (dict(opacity_curve='linear'), r"opacity_curve must be one of \('compatible', 'continuous'\), got 'linear'"),
        (dict(gaussian_scale=0.0), r'gaussian_scale must be a positive length in metres, got 0.0'),
        (dict(feat_channels=0), r'feat_channels and gaussians.num_layer must be positive, got 0 and 2'),
    ],
)
def test_bad_arguments(grid, arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassLogitsField(grid, **arguments)


def test_bad_input(grid, logits, feats):
    module = ClassLogitsField(grid)
    with pytest.raises(ValueError, match=r'\(X, Y, Z\) = grid.shape \(8, 8, 4\), got \(2, 4, 8, 8, 2\)'):
        module(of(logits[..., :2]))
    with pytest.raises(ValueError, match='logits have 3 channels, but the grid names 4 classes'):
        module(of(logits[:, :3]))
    for bad in (float('nan'), float('inf')):
        broken = logits.clone()
        broken[1, 2, 3, 4, 1] = bad
        with pytest.raises(ValueError, match='logits contain NaN or \\+inf'):
            check_logits(broken, module.grid)
    learned = ClassLogitsField(grid, feat_channels=6)
    with pytest.raises(ValueError, match=r'voxel_feats must be .* = \(2, 6, 8, 8, 4\), got None'):
        learned(of(logits))
    with pytest.raises(ValueError, match=r'got \(2, 5, 8, 8, 4\); set gaussians.feat_channels'):
        learned(of(logits, feats[:, :5]))
