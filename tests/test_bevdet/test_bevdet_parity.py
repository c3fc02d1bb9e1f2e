"""The whole network against the original implementation, stage by stage, in the reference geometry."""

import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from official_config import batch_from_official, model_config_from_official
from published_rays import NAMES, published_rays, published_supervision, ray_grid

from projects.bevdet.checkpoint import to_project
from projects.bevdet.geometry import block_bins, camera_vector, frustum_pixels, lift_points, normalise_positions, warp_cells
from projects.rendering import DensityField

FILE = 'bevstereo_occ_small.pt'
HOSTS = ('r50_stereo', 'swin_stereo', 'r50_single')
ATOL = 1e-4
LOSS_RTOL = 1e-5
GRAD_RTOL = 1e-3


@pytest.fixture(scope='module')
def golden(golden_dir):
    return torch.load(golden_dir / FILE, weights_only=True)['cases']


def load_case(golden, name):
    """A case with its config read."""
    case = dict(golden[name])
    config = json.loads(case['config_json'])
    case.update(config=config, model=dict(config['model']), num_cams=config['spec']['cams'], ori_hw=config['spec']['ori_hw'])
    case['model'].setdefault('out_dim', config.get('out_dim'))
    return case


def build_model(case, density=False):
    init_default_scope('mmdet3d')
    torch.set_num_threads(1)
    return MODELS.build(model_config_from_official(case['model'], density=density))


@pytest.fixture(scope='module', params=HOSTS)
def case(golden, request):
    return load_case(golden, request.param)


@pytest.fixture(scope='module')
def model(case):
    model = build_model(case)
    model.load_state_dict(to_project.state_dict(case['state_dict'], 'bevdet'), strict=True)
    return model.eval()


@pytest.fixture(scope='module')
def batch(case):
    return batch_from_official(case, case['model'])


def watch(modules):
    """Outputs of modules, a list for every name, and the handles of the hooks."""
    seen = {name: [] for name in modules}

    def keep(name):
        return lambda module, args, output: seen[name].append(output)

    return seen, [module.register_forward_hook(keep(name)) for name, module in modules.items()]


@pytest.fixture(scope='module')
def taps(model, batch):
    """Outputs of the modules of interest, oldest frame first, during one forward pass without gradients."""
    encoder = model.view_encoder
    watched = dict(
        backbone=model.img_backbone,
        neck=model.img_neck,
        depth_net=encoder.depth_net,
        frame_net=encoder.frame_net,
        cost_feat=getattr(encoder.depth_net, 'cost_convs', None),
        encoder=encoder.voxel_encoder,
        encoder_neck=encoder.voxel_neck,
        final_conv=model.occ_head.final_conv,
    )
    seen, handles = watch({name: module for name, module in watched.items() if module is not None})
    lifted = []
    match, lift = encoder.match, encoder.lift
    encoder.match = lambda *args: lifted.append(('cost_volume', match(*args))) or lifted[-1][1]
    encoder.lift = lambda *args: lifted.append(('lift', args)) or lift(*args)
    try:
        with torch.no_grad():
            scene = model.encode(batch)
            prediction = model.occ_head(scene)
    finally:
        del encoder.match, encoder.lift
        for handle in handles:
            handle.remove()
    seen['match'] = [value for name, value in lifted if name == 'cost_volume']
    seen['lift'] = [value for name, value in lifted if name == 'lift']
    return dict(seen, prediction=prediction)


def assert_close(ours, theirs, atol=ATOL):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def frames_of(case):
    """Taps of the lifted frames, oldest first."""
    found = sorted((name for name in case['taps'] if name.startswith('frame')), reverse=True)
    return [case['taps'][name] for name in found] or [case['taps']]


def test_image_features(taps, case):
    theirs = case['taps']
    if 'backbone_key' in theirs:
        for ours, other in zip(taps['backbone'][-1], theirs['backbone_key'], strict=True):
            assert_close(ours, other)
    assert_close(taps['neck'][-1][0], theirs['neck_key' if 'neck_key' in theirs else 'neck'])


@torch.no_grad()
def test_the_first_stage_runs_alone(model, batch, case):
    if 'stereo_feat_ref' not in case['taps']:
        assert not model.view_encoder.stereo
        return
    oldest = batch.at(1 - model.view_encoder.num_read)
    assert_close(model.img_backbone.first_stage(oldest.images.flatten(0, 1)), case['taps']['stereo_feat_ref'])


def test_depth_and_context_of_every_frame(taps, case, model):
    frames = frames_of(case)
    assert len(taps['depth_net']) == len(frames) == model.view_encoder.num_frames
    for (logits, context), theirs in zip(taps['depth_net'], frames, strict=True):
        assert_close(logits.softmax(1), theirs['depth'])
        assert_close(context, theirs['context'])


def test_stereo(taps, case):
    compared = 0
    for ours, cost, theirs in zip(taps.get('cost_feat', ()), taps['match'], frames_of(case)):
        assert_close(ours, theirs['cost_feat'])
        if 'cost_volume' in theirs:
            assert_close(cost, theirs['cost_volume'])
            compared += 1
    assert compared == ('curr2adjsensor' in case['taps'])


def test_volumes(taps, case, model):
    frames = frames_of(case)
    encoder = model.view_encoder
    for (feats, vector, projection, size, *cost), theirs in zip(taps['lift'], frames, strict=True):
        frame_net, encoder.frame_net = encoder.frame_net, None
        try:
            with torch.no_grad():
                pooled, _ = encoder.lift(feats, vector, projection, size, *cost)
        finally:
            encoder.frame_net = frame_net
        assert_close(pooled, theirs['voxel_pooled'])
    for ours, theirs in zip(taps.get('frame_net', ()), frames):
        assert_close(ours[-1], theirs['voxel_pre'])
    for ours, theirs in zip(taps['encoder'][0], case['taps'].get('encoder', ())):
        assert_close(ours, theirs)
    assert_close(taps['encoder_neck'][0], case['taps']['encoder_neck'])
    assert_close(taps['final_conv'][0], case['taps']['final_conv'])


def test_camera_vector(batch, case):
    vector = camera_vector(batch.at(0).cameras, batch.scene)
    compared = [theirs['mlp_input'] for theirs in frames_of(case) if 'mlp_input' in theirs]
    for theirs in compared:
        assert_close(vector, theirs, atol=1e-5)
    assert len(compared) == (len(frames_of(case)) if 'sensor2keyego' in case['taps'] and 'encoder' in case['taps'] else 0)


def test_points_from_the_projection(taps, case, model):
    encoder = model.view_encoder
    for (feats, _, projection, size, *_), theirs in zip(taps['lift'], frames_of(case), strict=True):
        u, v = frustum_pixels(size, feats.shape[:-3:-1], reference=True)
        points = lift_points(projection, u, v, encoder.depth_bins.points(reference=True))
        assert_close(points, theirs['points_ego'], atol=1e-5)


def test_warp_from_the_projections(batch, case, model):
    theirs = frames_of(case)[-1].get('stereo_grid')
    if theirs is None:
        assert not model.view_encoder.stereo
        return
    now, before = (batch.at(frame).cameras.ref2img.flatten(0, 1) for frame in (0, -1))
    cells = theirs.shape[2], frames_of(case)[-1]['cost_volume'].shape[2]
    u, v = frustum_pixels(batch.input_wh, cells, reference=True)
    warp = before @ torch.linalg.inv(now)
    pixels, front = warp_cells(warp, u, v, model.view_encoder.depth_bins.points(reference=True))
    grid = normalise_positions(pixels, front, batch.input_wh, reference=True).flatten(1, 2)
    near = theirs.abs().amax(-1) < 3
    assert near.float().mean() > 0.5
    assert_close(grid[near], theirs[near], atol=1e-5)
    assert torch.equal(~front.flatten(1, 2) & near, (theirs == -2).all(-1))


def test_logits(model, taps, case):
    prediction = taps['prediction']
    assert_close(prediction.logits[-1].movedim(1, -1), case['outputs']['logits'])
    assert torch.equal(prediction.logits[-1].argmax(1), case['outputs']['labels'].long())
    # the features for the aggregator are those in front of the predictor
    logits = model.occ_head.predictor(prediction.voxel_feats.movedim(1, -1))
    assert_close(logits, case['outputs']['logits'])


def test_block_bins(batch, case, model):
    if 'depth_bin' not in case['targets']:
        assert case['config']['cls'].startswith('BEVDet ')
        return
    stride = case['model']['img_view_transformer']['downsample']
    bins = block_bins(batch.at(0).depths, stride, model.view_encoder.depth_bins)
    assert torch.equal(bins.flatten(0, 1), case['targets']['depth_bin'].long())


def losses_of(model, batch, masked):
    """Losses by their original names and their sum; the voxel loss over all voxels or those that a camera sees."""
    model.occ_head.loss_occ.mask = 'camera' if masked else 'none'
    ours = model.occ_head.loss_by_feat(model.encode_decode(batch), batch)
    names = dict(loss_occ_ce_0='loss_occ', loss_lss_depth='loss_depth')
    return {names[name]: value for name, value in ours.items()}


def assert_losses_close(ours, theirs, rtol=LOSS_RTOL):
    assert {name: value.item() for name, value in ours.items()} == pytest.approx(theirs, rel=rtol)


def assert_gradients_close(model, theirs, norms=None):
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, grad in to_project.state_dict(theirs, 'bevdet').items():
        error = (grads[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-12)
        assert error < GRAD_RTOL, f'{name}: {error:.2e}'
    if norms is not None:
        norms = to_project.state_dict({name: norm for name, norm in norms.items() if norm is not None}, 'bevdet')
        assert {name: float(grad.norm()) for name, grad in grads.items()} == pytest.approx(
            {name: float(norm) for name, norm in norms.items()}, rel=GRAD_RTOL, abs=1e-5
        )


def test_losses_and_gradients(model, batch, case):
    masked = 'loss_occ_masked' in case['losses']
    model.zero_grad(set_to_none=True)
    ours = losses_of(model, batch, masked)
    theirs = {name.removesuffix('_masked'): value for name, value in case['losses'].items()}
    assert_losses_close(ours, theirs)
    sum(ours.values()).backward()
    assert_gradients_close(model, case['grads'], case['grad_norms'])
    if 'losses_masked' in case:
        with torch.no_grad():
            assert_losses_close({'loss_occ': losses_of(model, batch, True)['loss_occ']}, case['losses_masked'])


def test_without_history(golden):
    """The key frame alone: zeros take the place of the earlier frame and of the cost volume."""
    case = load_case(golden, 'r50_stereo_no_prev')
    host = load_case(golden, 'r50_stereo')
    assert case['config']['with_prev'] is False and case['model'] == host['model']
    model = build_model(case)
    model.load_state_dict(to_project.state_dict(host['state_dict'], 'bevdet'))
    model.eval().view_encoder.with_history = False
    batch = batch_from_official(host, host['model'])
    seen, handles = watch(
        dict(
            cost_feat=model.view_encoder.depth_net.cost_convs,
            depth_net=model.view_encoder.depth_net,
            neck=model.view_encoder.voxel_neck,
        )
    )
    ours = losses_of(model, batch, False)
    sum(ours.values()).backward()
    for handle in handles:
        handle.remove()
    assert [len(outputs) for outputs in seen.values()] == [1, 1, 1]
    assert_close(seen['cost_feat'][0], case['taps']['cost_feat'])
    assert_close(seen['depth_net'][0][0].softmax(1), case['taps']['depth'])
    assert_close(seen['neck'][0][:, :, ::2, ::2, ::2], case['taps']['encoder_neck_sub2'])
    assert_losses_close(ours, case['losses'])
    assert_gradients_close(model, case['grads'], case['grad_norms'])
    with torch.no_grad():
        logits = model.encode_decode(batch).logits[-1].movedim(1, -1)
        assert_losses_close({'loss_occ': losses_of(model, batch, True)['loss_occ']}, case['losses_masked'])
    assert_close(logits[:, ::2, ::2, ::2], case['outputs']['logits_sub2'])
    assert torch.equal(logits.argmax(-1), case['outputs']['labels'].long())


@pytest.mark.parametrize('with_cp', [False, True])
def test_training_step(golden, with_cp):
    """In training mode, also of the frames without gradients; recomputation counts no batch twice."""
    case = load_case(golden, 'r50_stereo')
    config = model_config_from_official(case['model'])
    if with_cp:
        encoder = config['view_encoder']
        for part in (
            config['img_backbone'],
            *(encoder[name] for name in ('depth_net', 'frame_net', 'voxel_encoder', 'voxel_neck')),
        ):
            part['with_cp'] = True
    model = MODELS.build(config)
    model.load_state_dict(to_project.state_dict(case['state_dict'], 'bevdet'), strict=True)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ours = losses_of(model, batch_from_official(case, case['model']), False)
    step = case['train_step']
    assert_losses_close(ours, step['losses'], rtol=1e-4)
    sum(ours.values()).backward()
    assert_gradients_close(model, step['grads'])
    state = model.state_dict()
    for name, value in to_project.state_dict(step['running'], 'bevdet').items():
        if name.endswith('num_batches_tracked'):
            assert torch.equal(state[name], value), name
        else:
            error = (state[name] - value).abs().max() / value.abs().max()
            assert error < 1e-3, f'{name}: {error:.2e}'


def test_density_head(golden):
    """RenderOcc's head, all seven losses and the gradients of the whole network on a host of this family."""
    case = load_case(golden, 'renderocc')
    host = load_case(golden, golden['renderocc']['host_case'])
    model = build_model(case, density=True)
    weights = {**host['state_dict'], **case['state_dict']}
    weights = {name: value for name, value in weights.items() if not name.startswith('predicter.')}
    model.load_state_dict(to_project.state_dict(weights, 'renderocc'), strict=True)
    model.eval()
    model.occ_head.loss_occ.class_weights = case['state_dict']['semantic_loss.weight'].tolist()
    batch = batch_from_official(host, host['model'])
    batch.rays = published_rays(case['inputs']['rays'], host['inputs']['bda'])
    nerf_head, world = case['config']['nerf_head'], case['config']['world_len']
    supervision = published_supervision(
        ray_grid(nerf_head['point_cloud_range'], (world, world, 16)),
        nerf_head['radius'],
        case['state_dict']['semantic_loss.weight'].tolist(),
        DensityField(model.grid),
    )
    prediction = model.encode_decode(batch)
    ours = model.occ_head.loss_by_feat(prediction, batch)
    names = dict(loss_occ_geo_0='loss_3d_geo', loss_occ_sem_0='loss_3d_sem', loss_lss_depth='loss_lss_depth')
    assert_losses_close({names[name]: value for name, value in ours.items()}, {n: case['losses'][n] for n in names.values()})
    rays = supervision.loss(prediction, batch)
    theirs = {name: case['losses'][name] for name in NAMES.values()}
    assert_losses_close({NAMES[name]: value for name, value in rays.items()}, theirs, rtol=1e-4)
    assert {*names.values(), *NAMES.values()} == set(case['losses'])
    model.zero_grad(set_to_none=True)
    sum({**ours, **rays}.values()).backward()
    assert_gradients_close(model, case['grads'], case['grad_norms'])
    free = model.grid.free_index
    pair = torch.stack((prediction.density, prediction.logits[-1][:, free]), dim=-1)
    assert_close(pair, case['outputs']['density_prob'])
    assert_close(prediction.logits[-1][:, list(model.grid.semantic_classes)].movedim(1, -1), case['outputs']['semantic'])
    assert torch.equal(model.occ_head.predict_labels(prediction), case['outputs']['labels'].long())
    assert_close(prediction.voxel_feats.permute(0, 1, 4, 3, 2), case['taps']['final_conv'])
