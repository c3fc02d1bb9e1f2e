"""The view encoder: batches, empty surfaces, options, training with distributed wrappers, errors."""

from dataclasses import replace

import pytest
import torch
from mmdet3d.registry import MODELS
from symphonies_official_config import model_config_from_official
from tiny_symphonies import build_batch, build_model, official_config

from projects.symphonies import SymphoniesViewEncoder


def parts_of(batch, index):
    return batch.samples([index])


def forward(model, batch):
    """Logits of all layers with dropout and norms in evaluation mode."""
    model.view_encoder.training = True
    prediction = model.encode_decode(batch)
    model.view_encoder.training = False
    return prediction


def run(model, batch):
    """The same and gradients of a probe."""
    model.zero_grad(set_to_none=True)
    prediction = forward(model, batch)
    sum(level.square().sum() for level in prediction.logits).backward()
    return prediction, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('with_cp', [False, True])
def test_two_samples_equal_two_single_runs(with_cp):
    """With different cameras, numbers of surface cells and of visible cells."""
    model = build_model()
    model.view_encoder.with_cp = model.img_neck.with_cp = model.occ_head.with_cp = with_cp
    batch = build_batch(2)
    joint, grads = run(model, batch)
    single = [run(model, parts_of(batch, index)) for index in range(2)]
    for level in range(3):
        expected = torch.cat([prediction.logits[level] for prediction, _ in single])
        torch.testing.assert_close(joint.logits[level], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(joint.logits[-1][0], joint.logits[-1][1], atol=1e-2)
    for name, grad in grads.items():
        expected = single[0][1][name] + single[1][1][name]
        error = (grad - expected).abs().max() / expected.abs().max().clamp(min=1e-9)
        assert error < 1e-3, f'{name}: {error:.2e}'
    feats = [feat.squeeze(1) for feat in model.extract_feat(batch.images)[:3]]
    feats = [proj(feat) for proj, feat in zip(model.view_encoder.out_projs, feats)]
    view, surface, _ = model.view_encoder._look(feats, batch)
    for rebatch in (surface, view.visible):
        first, second = (int((rebatch._sample == index).sum()) for index in range(2))
        assert 0 < first != second > 0


def test_no_surface_changes_nothing_but_the_proposal():
    """Also in a batch, and every parameter still gets a gradient, which distributed training needs."""
    model = build_model()
    batch = build_batch(2)
    with torch.no_grad():
        expected = forward(model, parts_of(batch, 1))
    for nothing in (0.0, -1.0, 1e6, float('nan')):
        batch.depths[0] = nothing
        with torch.no_grad():
            prediction = forward(model, batch)
        assert all(torch.isfinite(level).all() for level in prediction.logits)
        torch.testing.assert_close(prediction.logits[-1][1:], expected.logits[-1], atol=1e-5, rtol=1e-5)
    batch.depths[:] = 0
    _, grads = run(model, batch)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == grads.keys()
    proposal = [grad for name, grad in grads.items() if 'voxel_proposal' in name]
    assert proposal and all((grad == 0).all() for grad in proposal)


def test_visibility_of_nothing():
    model = build_model()
    batch = build_batch(1)
    batch.voxel_pixels = torch.full((1, 1, 8 * 6 * 8, 2), -(2**31))
    batch.voxel_visible = torch.zeros(1, 1, 8 * 6 * 8, dtype=torch.bool)
    prediction, grads = run(model, batch)
    assert torch.isfinite(prediction.logits[-1]).all()
    assert all(torch.isfinite(grad).all() for grad in grads.values())


def test_one_output_in_evaluation():
    model = build_model()
    batch = build_batch(1)
    with torch.no_grad():
        prediction = model.encode_decode(batch)
    assert len(prediction.logits) == 1 and prediction.voxel_feats.shape == (1, 16, 16, 12, 16)
    model.train()
    prediction = model.encode_decode(batch)
    assert len(prediction.logits) == 3 and all(level.shape == (1, 5, 16, 12, 16) for level in prediction.logits)


@pytest.mark.parametrize(
    'option',
    [
        dict(surface_rounding='floor'),
        dict(plane_reference='centred'),
        dict(truncate_pixels=False),
        dict(double_residual=False),
        dict(normalize_keys=True),
        dict(attend_to_updated_scene=True),
        dict(aspp_layer=1),
    ],
)
def test_every_compatible_behaviour_can_be_switched(option):
    """Each option changes the result, so each default is what the parity test fixes."""
    model = build_model()
    config = model_config_from_official(official_config())
    config['view_encoder'].update(option)
    other = MODELS.build(config).eval()
    other.load_state_dict(model.state_dict())
    batch = build_batch(1)
    with torch.no_grad():
        ours, theirs = (m.encode_decode(batch).logits[-1] for m in (model, other))
    assert (ours - theirs).abs().max() > 1e-4


@pytest.mark.parametrize('num_layers, used', [(1, False), (2, False), (4, True)])
def test_other_numbers_of_layers(num_layers, used):
    """The ASPP follows the third layer, as in the original; a model that has none keeps it, frozen."""
    model = build_model(num_layers=num_layers)
    batch = build_batch(1)
    prediction, grads = run(model, batch)
    assert len(prediction.logits) == num_layers
    assert all(p.requires_grad == used for p in model.view_encoder.aspp.parameters())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == grads.keys()
    config = model_config_from_official(official_config(num_layers=num_layers))
    config['view_encoder']['aspp_layer'] = None
    assert all(p.requires_grad for p in MODELS.build(config).view_encoder.aspp.parameters())


@pytest.mark.parametrize(
    'changes',
    [
        dict(downsample_z=1, scene_pos=dict(num_embeds=[8, 6, 2], squeeze_dims=[2, 2, 1])),
        dict(volume_scale=1, downsample_z=4, scene_pos=dict(squeeze_dims=[1, 2, 2], num_embeds=[16, 12, 1])),
        dict(embed_dims=8),
        dict(view_scales=[8, 32]),
    ],
)
def test_other_shapes(changes):
    model = build_model(**changes)
    batch = build_batch(1)
    prediction, grads = run(model, batch)
    assert prediction.logits[-1].shape == (1, 5, 16, 12, 16)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == grads.keys()
    assert (model.view_encoder.out_projs is None) == (changes.get('embed_dims') == 8)


def test_padded_images():
    """What pads an image to the size of its batch is no image: no voxel is visible there and no depth."""
    model = build_model()
    batch = build_batch(1)
    images, depths = (torch.nn.functional.pad(value, (0, 32, 0, 24)) for value in (batch.images, batch.depths))
    seen = []
    for given in (batch, replace(batch, images=images, depths=depths)):
        feats = [torch.zeros(1, 16, 4, 4)] * 3
        view, surface, pixels = model.view_encoder._look(feats, given)
        seen.append((view.visible._query, surface._query, pixels * torch.tensor(given.input_wh)))
    for plain, with_padding in zip(*seen):
        torch.testing.assert_close(plain, with_padding)


def test_mixed_precision():
    model = build_model()
    batch = build_batch(2)
    full = sum(model.loss(batch, []).values())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(batch, [])
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert sum(losses.values()).item() == pytest.approx(full.item(), rel=0.02)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_checkpointing_in_training_mode_keeps_the_statistics_of_norms():
    """Batch norms of the head run three times per step, and again when they are recomputed."""
    batch = build_batch(2)
    states, totals = [], []
    for with_cp in (False, True):
        model = build_model().train()
        model.view_encoder.with_cp = model.img_neck.with_cp = model.occ_head.with_cp = with_cp
        torch.manual_seed(0)  # of the dropout
        total = sum(model.loss(batch, []).values())
        total.backward()
        totals.append(total.item())
        states.append(model.state_dict())
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key])
    assert states[0]['occ_head.up.1.num_batches_tracked'] == 3


@pytest.mark.parametrize('with_cp', [False, True])
def test_distributed_training_finds_no_unused_parameter(tmp_path, with_cp):
    """A second step fails if a parameter got no gradient in the first one."""
    model = build_model().train()
    model.view_encoder.with_cp = model.img_neck.with_cp = model.occ_head.with_cp = with_cp
    batch = build_batch(1)
    batch.depths[:] = 0  # nothing is proposed
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
        for _ in range(2):
            sum(wrapped(batch, [], mode='loss').values()).backward()
    finally:
        torch.distributed.destroy_process_group()


def test_input_errors():
    model = build_model()
    batch = build_batch(1)
    feats = [torch.zeros(1, 1, 8, 4, 4)] * 3
    with pytest.raises(ValueError, match='Symphonies needs a depth map of every image.*put LoadDepthMaps into the pipelines'):
        model.view_encoder(feats, replace(batch, depths=None))
    with pytest.raises(ValueError, match=r'must have the size of the network images.*\(1, 1, 40, 64\), got \(1, 1, 20, 64\)'):
        model.view_encoder(feats, replace(batch, depths=torch.ones(1, 1, 20, 64)))
    with pytest.raises(ValueError, match='one camera and expects image features .*F = 8.*got .1, 2, 8, 4, 4.; set cam_names'):
        model.view_encoder([torch.zeros(1, 2, 8, 4, 4)] * 3, batch)
    with pytest.raises(ValueError, match='needs 3 feature maps, got 2; compare with model.img_neck.num_levels'):
        model.view_encoder(feats[:2], batch)
    with pytest.raises(ValueError, match='P = 384 voxels of 2 times the length.*the pipeline must project with the same scale'):
        projected = dict(voxel_pixels=torch.zeros(1, 1, 48, 2).long(), voxel_visible=torch.zeros(1, 1, 48).bool())
        model.view_encoder(feats, replace(batch, **projected))


@pytest.mark.parametrize(
    'options, text',
    [
        (dict(surface_rounding='round'), "surface_rounding must be one of .* got 'round'"),
        (dict(plane_reference='center'), "plane_reference must be one of .* got 'center'"),
        (dict(volume_scale=5), r'volume_scale 5 and.*must divide grid.shape \(16, 12, 16\)'),
        (dict(position_squeeze=(3, 1, 1)), 'must have a height of a multiple of 3 cells'),
    ],
)
def test_config_errors(options, text):
    grid = model_config_from_official(official_config())['grid']
    with pytest.raises(ValueError, match=text):
        SymphoniesViewEncoder(grid, embed_dims=16, in_channels=8, **options)
