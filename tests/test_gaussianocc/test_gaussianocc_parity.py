"""The networks against the original implementation, stage by stage."""

import pytest
import torch
from small_gaussianocc import batch, build, normalised, to_project
from torch.testing import assert_close

ATOL = 1e-4


@pytest.fixture(scope='module')
def networks(case):
    torch.set_num_threads(1)
    return build(case)


@pytest.fixture(scope='module')
def taps(networks, case):
    """Outputs of the modules of interest during one forward pass."""
    model, _ = networks
    seen = {}

    def keep(name):
        return lambda module, args, output: seen.setdefault(name, output)

    head = model.occ_head.network
    watched = dict(
        backbone=model.img_backbone,
        encoder_up_1_8=model.img_neck.merge,
        encoder_up_1_4=model.img_neck.refine,
        feature=model.img_neck.out_conv,
        lifted=model.view_encoder,
        dres0=head.dres0,
        dres1=head.dres1,
        hourglass1=head.dres2,
        hourglass2=head.dres3,
        hourglass3=head.dres4,
    )
    handles = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    with torch.no_grad():
        images = normalised(case['inputs']['color_aug'][0])[None]
        seen['prediction'] = model.encode_decode(batch(case, images))
    for handle in handles:
        handle.remove()
    return seen


def test_image_encoder(taps, case):
    for ours, name in zip(taps['backbone'], ('encoder_1_8', 'encoder_1_16')):
        assert_close(ours, case['taps'][name], rtol=0, atol=ATOL)
    for name in ('encoder_up_1_8', 'encoder_up_1_4', 'feature'):
        assert_close(taps[name], case['taps'][name], rtol=0, atol=ATOL)


@pytest.mark.parametrize('name', ['lifted', 'dres0', 'dres1'])
def test_volumes(taps, case, name):
    assert_close(taps[name], case['taps'][name], rtol=0, atol=ATOL)


@pytest.mark.parametrize('name', ['hourglass1', 'hourglass2', 'hourglass3'])
def test_hourglasses(taps, case, name):
    assert len(taps[name]) == len(case['taps'][name]) == 3
    for ours, theirs in zip(taps[name], case['taps'][name]):
        assert_close(ours, theirs, rtol=0, atol=ATOL)


def test_logits_of_vertices_and_voxels(taps, case, networks):
    model, _ = networks
    prediction = taps['prediction']
    assert_close(prediction.contracted_logits, case['taps']['logits_volume'], rtol=0, atol=ATOL)
    sampled = prediction.logits[-1][:, :, ::20, ::20, ::4]
    assert_close(sampled, case['occupancy']['logits_correct_centres'], rtol=0, atol=ATOL)
    # the original looks up half a vertex step beside the corner, which is half a voxel at official size only
    grid = model.occ_head.grid
    offset = case['occupancy']['voxel_offset']
    points = grid.centers()[::20, ::20, ::4] - torch.tensor(grid.voxel_size) / 2 + offset
    logits = model.occ_head.contraction.sample(case['taps']['logits_volume'], points)
    assert_close(logits, case['occupancy']['logits_every_20_20_4'], rtol=0, atol=ATOL)


def pose_images(case):
    frames = case['config']['frame_ids']
    return torch.stack([case['inputs']['color_aug'][f].float() / 255 for f in frames])[None], frames


def test_pose_network(networks, case):
    _, pose = networks
    images, frames = pose_images(case)
    matrices = pose.motions(images, frames)[0]
    ref2cam = torch.linalg.inv(case['inputs']['cam2ego'])
    for i, frame in enumerate(frames):
        if frame == 0:
            assert torch.equal(matrices[i], torch.eye(4))
            continue
        pair = (images[:, i], images[:, frames.index(0)])
        vector = pose(*(pair if frame < 0 else pair[::-1]))
        for ours, name in zip(vector, ('axisangle', 'translation')):
            assert_close(ours[0], case['taps'][name][frame][0, 0, 0], rtol=0, atol=1e-5)
        motion = ref2cam @ matrices[i] @ case['inputs']['cam2ego']
        assert_close(motion, case['taps']['cam_T_cam'][frame], rtol=0, atol=ATOL)


@pytest.mark.parametrize('frame', [-1, 1])
def test_pose_network_with_the_statistics_of_the_batch(case, frame):
    _, pose = build(case)
    pose.frozen = pose.batch_statistics = True
    pose.train()
    images, frames = pose_images(case)
    pair = (images[:, frames.index(frame)], images[:, frames.index(0)])
    vector = pose(*(pair if frame < 0 else pair[::-1]))
    for ours, name in zip(vector, ('axisangle_batch_stats', 'translation_batch_stats')):
        assert_close(ours[0], case['taps'][name][frame][0, 0, 0], rtol=0, atol=1e-4)


def test_gradients_of_the_parameters(case):
    """From the original's gradient of the logits to parameters of all stages."""
    model, _ = build(case)
    images = normalised(case['inputs']['color_aug'][0])[None]
    prediction = model.encode_decode(batch(case, images))
    prediction.contracted_logits.backward(case['grads']['tap.logits_volume'])
    theirs = to_project.state_dict({k: v for k, v in case['grads'].items() if not k.startswith('tap.')}, 'authors')
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert len(theirs) >= 10
    for name, grad in theirs.items():
        assert_close(ours[name], grad, rtol=0, atol=1e-3 * float(grad.abs().max()), msg=name)


def test_two_samples_equal_two_single_runs(networks, case):
    model, _ = networks
    images, views = normalised(case['inputs']['color_aug'][0])[None], torch.linalg.inv(case['inputs']['cam2ego'])[None]
    turned = views @ torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0.2], [0, 0, 0, 1]])
    singles = [(images, views), (images.flip(-1), turned)]

    def run(imgs, ref2cam):
        return model.encode_decode(batch(case, imgs, ref2cam)).contracted_logits

    with torch.no_grad():
        alone = torch.cat([run(*single) for single in singles])
        both = run(*(torch.cat(parts) for parts in zip(*singles)))
    assert_close(both, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


@pytest.mark.parametrize('count', [1, 4])
def test_any_number_of_cameras(networks, case, count):
    model, pose = networks
    images, views = normalised(case['inputs']['color_aug'][0])[None, :count], torch.linalg.inv(case['inputs']['cam2ego'])[None]
    with torch.no_grad():
        prediction = model.encode_decode(batch(case, images, views[:, :count]))
        motions = pose.motions(pose_images(case)[0][:, :, :count], case['config']['frame_ids'])
    assert prediction.logits[-1].isfinite().all() and motions.isfinite().all()
