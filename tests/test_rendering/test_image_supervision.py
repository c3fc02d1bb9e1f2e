"""Field, views, image target and terms put together, against the original's second stage."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from projects.occ.structures import Cameras, ContractedGrid, OccBatch, OccPrediction, VoxelGrid
from projects.rendering import FreeLogitField, ImageTarget, KeyFrameCameras, RenderSupervision, SplatRenderer
from projects.rendering.footprint import quaternion_of
from projects.rendering.frame_images import frame_images, frame_motions
from projects.rendering.half_space import half_space


@pytest.fixture(scope='module')
def case(golden_dir):
    torch.set_num_threads(1)
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    return {**case, 'config': json.loads(case['config_json'])}


class GivenMotions(nn.Module):
    """Stands for a pose network whose output is known."""

    def __init__(self, matrices):
        super().__init__()
        self.matrices = nn.Parameter(matrices)

    def motions(self, images, frames):
        assert images.shape[1] == len(frames) == self.matrices.shape[1]
        return self.matrices


def grids(config):
    x0, x1, y0, y1, z0, z1 = config['real_size']
    rng = (x0, y0, z0, x1, y1, z1)
    classes = config['semantic_classes']
    names = tuple(f'class_{i}' for i in range(classes))
    voxels = VoxelGrid(rng, 0.4, (200, 200, 16), 'ego', free_index=classes - 1, class_names=names)
    return voxels, ContractedGrid(rng, (config['X'], config['Y'], config['Z']), config['contracted_ratio'])


def batch_of(case, masked=True):
    inputs, config = case['inputs'], case['config']
    frames = config['frame_ids']
    count = config['N']
    ref2cam = torch.linalg.inv(inputs['cam2ego'])
    cameras = Cameras(
        ref2cam=ref2cam.repeat(len(frames), 1, 1)[None],
        K=torch.cat([inputs['K'][f][:, :3, :3] for f in frames])[None],
        sizes=torch.tensor([config['Wo'], config['Ho']]).expand(1, len(frames) * count, 2),
        frame=torch.tensor(frames).repeat_interleave(count),
    )
    originals = [[image for f in frames for image in inputs['color'][f]]]
    masks = [[mask[0] > 0 for mask in inputs['mask']]] if masked else None
    labels = [list(inputs['semantic'].short())]
    return OccBatch(cameras=cameras, originals=originals, image_masks=masks, pseudo_labels=labels, tokens=['golden'])


def ego_motions(case):
    cam2ego = case['inputs']['cam2ego'][0]
    step = {f: cam2ego @ case['taps']['cam_T_cam'][f][0] @ torch.linalg.inv(cam2ego) for f in (-1, 1)}
    return torch.stack([torch.eye(4), step[-1], step[1]])[None]


def build(case, masked):
    config = case['config']
    voxels, contraction = grids(config)
    reach, far = config['real_size'][1], config['max_depth']
    limits = dict(min_depth=config['min_depth'], max_depth=far)
    noise = case['inputs']['automask_noise'].float() * 1e-5
    weights = config['loss_weights']
    return RenderSupervision(
        field=FreeLogitField(voxels, contraction, config['gs'], ((1.5 * reach, 4), (far, 8))),
        views=KeyFrameCameras((config['h'], config['w'])),
        renderer=SplatRenderer(voxels),
        target=ImageTarget(size=(config['H'], config['W']), poses=GivenMotions(ego_motions(case)), masks=masked),
        terms=dict(
            loss_photometric=dict(
                function='photometric',
                quantity='depth',
                options=dict(**limits, mask_mode='zero', half_pixel=False, noise=noise),
            ),
            loss_smooth=dict(function='smooth', quantity='depth', weight=weights['smooth'], options=limits),
            loss_pseudo_sem=dict(
                function='cross_entropy', weight=weights['semantic'], options=dict(class_weights=case['class_weights'].tolist())
            ),
            loss_opacity_entropy=dict(function='opacity_entropy', weight=weights['opacity_entropy']),
            loss_tv=dict(function='total_variation', weight=weights['tv']),
        ),
    )


def test_rendering_of_the_original(case):
    supervision = build(case, False)
    prediction = OccPrediction(logits=[], contracted_logits=case['taps']['logits_volume'])
    field = supervision.field(prediction)
    flat = field.opacity[0].permute(2, 1, 0).reshape(-1, 1)
    assert_close(flat, case['taps']['opacity'], rtol=0, atol=1e-5)
    rendered = supervision.renderer(field, supervision.views(batch_of(case))['cam'])
    assert_close(rendered.depth[0].clamp(0.1, 80), case['render']['depth_no_cull'][:, 0], rtol=0, atol=1e-3)
    assert_close(rendered.depth[0].clamp(0.1, 80), case['render']['depth'][:, 0], rtol=0, atol=1e-3)
    assert_close(rendered.features[0], case['render']['semantic'], rtol=0, atol=1e-4)
    assert_close(rendered.alpha[0], case['render']['alpha_no_cull'], rtol=0, atol=1e-4)


@pytest.mark.parametrize('masked', [False, True])
def test_losses_and_gradients_of_the_original(case, masked):
    supervision = build(case, masked)
    logits = case['taps']['logits_volume'].clone().requires_grad_()
    losses = supervision.loss(OccPrediction(logits=[], contracted_logits=logits), batch_of(case, masked))
    expected = case['losses_masked' if masked else 'losses']
    photometric = losses['loss_photometric'] + losses['loss_smooth']
    assert_close(photometric, expected['loss_pe/0'], rtol=1e-5, atol=0)
    assert_close(losses['loss_pseudo_sem'], expected['loss_semantic/0'], rtol=1e-5, atol=0)
    assert_close(losses['loss_opacity_entropy'], expected['loss_entropy_last/0'], rtol=1e-5, atol=0)
    assert_close(losses['loss_tv'], expected['loss_distortion/0'], rtol=1e-5, atol=0)
    total = sum(losses.values())
    assert_close(total, expected['self_loss'], rtol=1e-5, atol=0)
    total.backward()
    theirs = case['grads_masked' if masked else 'grads']['tap.logits_volume']
    assert_close(logits.grad, theirs, rtol=0, atol=1e-3 * float(theirs.abs().max()))
    assert supervision.target.poses.matrices.grad.abs().sum() > 0


def test_half_space_of_the_original(case):
    cameras = batch_of(case).cameras.at(0)
    keep = half_space(case['taps']['vertices'], cameras)[0]
    assert torch.equal(keep, case['taps']['keep'])
    views = KeyFrameCameras((case['config']['h'], case['config']['w']), cull='half_space')
    supervision = build(case, False)
    field = supervision.field(OccPrediction([], contracted_logits=case['taps']['logits_volume']))
    rendered = supervision.renderer(field, views(batch_of(case))['cam'], cull=views.cull['cam'])
    assert_close(rendered.depth[0].clamp(0.1, 80), case['render']['depth'][:, 0], rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match='half_space'):
        half_space(case['taps']['vertices'], cameras.select([0, 1]))


def test_footprint_of_the_released_renderer(case):
    supervision = build(case, False)
    voxels, _ = grids(case['config'])
    field = supervision.field(OccPrediction([], contracted_logits=case['taps']['logits_volume']))
    rendered = SplatRenderer(voxels, fov_y='x')(field, supervision.views(batch_of(case))['cam'])
    depth = rendered.depth[0].clamp(0.1, 80)
    difference = (depth - case['render']['depth_fov_y_x'][:, 0]).abs()
    # the case was drawn in single precision, and a pixel may have a Gaussian on the threshold of being drawn
    assert difference.median() < 1e-4 and (difference > 3e-3).float().mean() < 1e-3 and difference.max() < 0.05
    difference = (rendered.features[0] - case['render']['semantic_fov_y_x']).abs()
    assert (difference > 1e-3).float().mean() < 2e-3
    assert (depth - case['render']['depth'][:, 0]).abs().max() > 0.5
    with pytest.raises(ValueError, match='fov_y'):
        SplatRenderer(voxels, fov_y='y')


def test_quaternions_of_rotations():
    for seed in range(8):
        q = torch.nn.functional.normalize(torch.randn(4, generator=torch.Generator().manual_seed(seed)).double(), dim=0)
        w, x, y, z = q
        matrix = torch.stack(
            [
                torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
                torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
                torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
            ]
        )
        found = quaternion_of(matrix)
        assert_close(found * (found @ q).sign(), q, rtol=0, atol=1e-9)


def double(batch):
    """The sample twice, the second time with its images mirrored top to bottom, so that the two differ."""
    cameras = Cameras.stack([batch.cameras, batch.cameras])
    originals = batch.originals + [[image.flip(1) for image in batch.originals[0]]]
    return OccBatch(
        cameras=cameras,
        originals=originals,
        image_masks=batch.image_masks * 2,
        pseudo_labels=batch.pseudo_labels + [[labels.flip(0) for labels in batch.pseudo_labels[0]]],
        tokens=['a', 'b'],
    )


def test_two_samples_are_the_mean_of_two_single_ones(case):
    supervision = build(case, True)
    for term in supervision.terms.values():
        (term.options or {}).pop('noise', None)
    supervision.target.poses = None  # the data set's: all frames at one place
    both = double(batch_of(case))
    logits = torch.cat([case['taps']['logits_volume'], 0.5 * case['taps']['logits_volume'].flip(2)])
    joint = supervision.loss(OccPrediction([], contracted_logits=logits), both)
    alone = [supervision.loss(OccPrediction([], contracted_logits=logits[i : i + 1]), both.samples([i])) for i in (0, 1)]
    for name, loss in joint.items():
        # noise breaks the ties of the photometric term
        rtol = 1e-3 if name == 'loss_photometric' else 1e-5
        assert_close(loss, (alone[0][name] + alone[1][name]) / 2, rtol=rtol, atol=1e-7)
    assert abs(alone[0]['loss_pseudo_sem'] - alone[1]['loss_pseudo_sem']) > 1e-4


def test_nothing_to_compare_gives_finite_losses_with_gradients(case):
    supervision = build(case, True)
    batch = batch_of(case)
    batch.image_masks = [[torch.zeros_like(mask) for mask in batch.image_masks[0]]]
    batch.pseudo_labels = [[torch.full_like(labels, -1) for labels in batch.pseudo_labels[0]]]
    logits = case['taps']['logits_volume'].clone().requires_grad_()
    losses = supervision.loss(OccPrediction([], contracted_logits=logits), batch)
    sum(losses.values()).backward()
    assert losses['loss_pseudo_sem'] == 0 and all(loss.isfinite() for loss in losses.values())
    assert logits.grad.isfinite().all()


def test_a_bounded_grid_of_another_host(case):
    """Any host with a free class: plain grid, sensor poses, free space behind the grid."""
    config = case['config']
    names = tuple(f'class_{i}' for i in range(config['semantic_classes']))
    grid = VoxelGrid((-16, -16, -1, 16, 16, 3), 2, (16, 16, 2), 'ego', free_index=17, class_names=names)
    supervision = RenderSupervision(
        field=FreeLogitField(grid, scale=1.0, background='free'),
        views=KeyFrameCameras((config['h'], config['w'])),
        renderer=SplatRenderer(grid),
        target=ImageTarget(size=(config['H'], config['W'])),
        terms=dict(
            loss_photometric=dict(function='photometric', quantity='depth'),
            loss_pseudo_sem=dict(function='cross_entropy', weight=0.02),
        ),
    )
    logits = torch.randn(1, 18, 16, 16, 2, requires_grad=True)
    losses = supervision.loss(OccPrediction(logits=[logits]), batch_of(case))
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0
    empty = supervision.field(OccPrediction(logits=[torch.zeros(1, 18, 16, 16, 2).index_fill(1, torch.tensor(17), 20.0)]))
    image = supervision.renderer(empty, supervision.views(batch_of(case))['cam'])
    assert (image.features.argmax(-1) == 17).all() and image.alpha.max() < 1e-3


def test_images_intrinsics_and_motions(case):
    config, batch = case['config'], batch_of(case)
    image, K = frame_images(batch, 1, (config['H'], config['W']))
    assert_close(image[0], case['inputs']['color'][1].float() / 255, rtol=0, atol=1e-6)
    assert_close(K[0], case['inputs']['K_scaled'][1][:, :3, :3], rtol=1e-6, atol=1e-4)
    motions = frame_motions(batch, (-1, 1), GivenMotions(ego_motions(case)), (config['H'], config['W']))
    for motion, frame in zip(motions, (-1, 1)):
        assert_close(motion[0], case['taps']['cam_T_cam'][frame], rtol=0, atol=1e-4)
    still = frame_motions(batch, (-1,), None, (config['H'], config['W']))[0]
    assert_close(still[0], torch.eye(4).expand(config['N'], 4, 4), rtol=0, atol=1e-5)


def test_what_a_target_reads_must_be_there(case):
    supervision = build(case, True)
    batch = batch_of(case)
    batch.pseudo_labels = None
    with pytest.raises(ValueError, match='pseudo_labels'):
        supervision.loss(OccPrediction([], contracted_logits=case['taps']['logits_volume']), batch)
    with pytest.raises(ValueError, match='frames'):
        ImageTarget(frames=(0, 1))
    with pytest.raises(ValueError, match='contracted_logits'):
        supervision.field(OccPrediction(logits=[torch.zeros(1)]))
