"""The frame loop: what trains, what does not, batches, single cameras, missing frames and the override of depth."""

import pytest
import torch
from tiny_bevdet import build_batch, build_model, sample_of

from projects.bevdet.geometry import block_bins


def losses_of(model, batch):
    return model.occ_head.loss_by_feat(model.encode_decode(batch), batch)


@pytest.mark.parametrize('head', ['BEVDetOccHead', 'DensityOccHead'])
def test_every_parameter_is_trained(head):
    model = build_model(head=head).train()
    losses = losses_of(model, build_batch(batch_size=2))
    assert {name for name in losses if 'occ' not in name} == {'loss_lss_depth'}
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    # the free score is trained by the 3D loss alone, but it is one row of a matrix
    assert not without
    dead = [name for name, p in model.named_parameters() if not p.grad.any()]
    # biases in front of batch norms have no effect in training
    assert all(name.endswith('bias') for name in dead)


def test_gradients_reach_the_key_frame_alone():
    model, batch = build_model().eval(), build_batch()
    batch.images.requires_grad_()
    model.encode_decode(batch).logits[-1].square().sum().backward()
    moved = [bool(batch.images.grad[:, batch.cameras.frame_indices(frame)].any()) for frame in (0, -1, -2)]
    assert moved == [True, False, False]


def test_history_changes_the_prediction():
    model, batch = build_model().eval(), build_batch()
    with torch.no_grad():
        for parameter in model.view_encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        logits = model.encode_decode(batch).logits[-1]
        for frame in (-1, -2):
            changed = build_batch()
            changed.images[:, batch.cameras.frame_indices(frame)] *= -3
            assert (model.encode_decode(changed).logits[-1] - logits).abs().max() > 1e-3
        model.view_encoder.with_history = False
        alone = model.encode_decode(batch).logits[-1]
        assert torch.equal(model.encode_decode(batch.at(0)).logits[-1], alone)
    assert (alone - logits).abs().max() > 1e-3


@pytest.mark.parametrize('history_eval', [False, True])
def test_earlier_frames_move_the_statistics_unless_told_otherwise(history_eval):
    model, batch = build_model().train(), build_batch()
    model.history_eval = history_eval
    model.view_encoder.frame_net.eval()  # a part that stays as it is
    losses_of(model, batch)
    norm = model.img_backbone.bn1
    assert int(norm.num_batches_tracked) == (1 if history_eval else 3)
    assert model.training and norm.training and not model.view_encoder.frame_net.training


def test_a_batch_equals_its_samples():
    model, batch = build_model().eval(), build_batch(batch_size=2)
    with torch.no_grad():
        together = model.encode_decode(batch)
        for index in range(2):
            single = model.encode_decode(sample_of(batch, index))
            torch.testing.assert_close(single.logits[-1][0], together.logits[-1][index], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(single.depth_logits[0], together.depth_logits[index], atol=1e-5, rtol=1e-5)


def test_one_camera():
    model, batch = build_model().eval(), build_batch(num_cams=1)
    with torch.no_grad():
        assert model.encode_decode(batch).logits[-1].shape == (1, 5, *model.grid.shape)
    with pytest.raises(ValueError, match='at least two'):
        model.train().encode_decode(batch)
    two = build_batch(batch_size=2, num_cams=1)
    assert all(value.isfinite() for value in losses_of(model, two).values())


def test_a_single_frame_without_stereo():
    model = build_model(num_frames=1, stereo=False, frame_net=None).train()
    losses = losses_of(model, build_batch(num_cams=1, frames=1))
    assert list(losses) == ['loss_occ_ce_0'] and model.view_encoder.num_read == 1
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_frames_without_stereo():
    """The earlier frames are fused; none is read for matching alone."""
    model = build_model(num_frames=3, stereo=False).eval()
    assert model.view_encoder.num_read == 3
    with torch.no_grad():
        assert model.encode_decode(build_batch(frames=3)).logits[-1].isfinite().all()


def test_missing_frames_are_named():
    with pytest.raises(ValueError, match='-2'):
        build_model().encode_decode(build_batch(frames=2))


def test_views_that_see_nothing_of_the_grid():
    model, batch = build_model().eval(), build_batch()
    batch.cameras.ref2cam[..., 2, 3] += 100.0
    losses = losses_of(model, batch)
    assert all(value.isfinite() for value in losses.values())
    losses['loss_occ_ce_0'].backward()
    assert not model.img_neck.lateral_convs[0].conv.weight.grad.any()
    assert model.occ_head.predictor[2].weight.grad.any()


def test_measured_depth_can_override_the_predicted_one():
    model, batch = build_model().eval(), build_batch()
    encoder, calls = model.view_encoder, []

    def keep(depth, bins):
        calls.append((depth, bins))
        return depth

    with torch.no_grad():
        plain = model.encode(batch)
        encoder.depth_override = keep
        assert torch.equal(model.encode(batch).volume, plain.volume)
    (depth, bins), *more = calls
    assert not more  # the key frame's only
    torch.testing.assert_close(depth, plain.depth_logits.softmax(2))
    assert torch.equal(bins, block_bins(batch.at(0).depths, 16, encoder.depth_bins)) and (bins >= 0).any()


def test_the_override_changes_voxels_along_measured_rays_only():
    model, batch = build_model().eval(), build_batch(frames=1)
    encoder = model.view_encoder
    encoder.with_history, encoder.frame_net = False, None
    batch.depths.zero_()
    batch.depths[0, 0, 20, 50] = 3.3  # in cell (1, 3) of the first camera

    def one_hot(depth, bins):
        target = torch.nn.functional.one_hot(bins.clamp(min=0), depth.shape[2]).movedim(-1, 2).to(depth.dtype)
        return torch.where((bins >= 0).unsqueeze(2), target, depth)

    volumes = []
    forward = type(encoder).forward
    with torch.no_grad():
        for override in (None, one_hot):
            encoder.depth_override = override
            type(encoder).forward = lambda self, given: volumes.append(given[-1]) or forward(self, given)
            try:
                model.encode(batch)
            finally:
                type(encoder).forward = forward
    changed = (volumes[0] - volumes[1]).abs().amax((0, 1)) > 1e-7
    ranks = encoder._ranks(batch.cameras.ref2img, batch.input_wh, (6, 4))[0, 0, :, 1, 3]
    allowed = torch.zeros(changed.numel(), dtype=torch.bool).index_fill(0, ranks[ranks >= 0], True)
    assert changed.any() and not (changed.flatten() & ~allowed).any()


def test_depth_maps_are_asked_for():
    model, batch = build_model(), build_batch()
    batch.depths = None
    with pytest.raises(ValueError, match='loss_depth'):
        losses_of(model, batch)


def test_nothing_measured_gives_no_depth_loss():
    model, batch = build_model(), build_batch()
    batch.depths.zero_()
    assert losses_of(model, batch)['loss_lss_depth'] == 0


def test_a_volume_of_another_resolution():
    model = build_model(shape=(20, 15, 10)).eval()
    with torch.no_grad():
        scene = model.encode(build_batch())
        assert scene.volume.shape[2:] == (10, 15, 20)
        assert model.occ_head(scene).logits[-1].shape[2:] == model.grid.shape
