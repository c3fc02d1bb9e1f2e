"""Stage 1 as a model: losses of a batch, predictions, what pipelines may do, and that its parts learn."""

import pytest
import torch
from small_gaussianocc import backbone
from torch.testing import assert_close

from projects.gaussianocc import DepthPoseModel
from projects.occ.structures import Cameras, OccBatch, OccDataSample
from projects.rendering import registered_parts as _registered_parts  # noqa: F401

SIZE, ORIGINAL, FRAMES = (64, 96), (80, 160), (0, -1, 1)


def build(**options):
    levels = dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch')
    defaults = dict(
        depth_network=dict(type='DepthNetwork', backbone=levels, in_channels=(8, 16, 32, 64), channels=(16, 16, 8, 8)),
        pose_network=dict(
            type='PoseNetwork', backbone=backbone([1, 1, 1, 1], 4, (3,), in_channels=6), in_channels=32, hidden_channels=16
        ),
        loss=dict(type='RigDepthLoss', warmup_steps=0),
    )
    return DepthPoseModel(**{**defaults, **options})


def batch_of(count=3, samples=1, seed=0, masks=False):
    generator = torch.Generator().manual_seed(seed)
    poses = []
    for i in range(count):
        yaw = torch.tensor(2 * torch.pi * i / 3)
        ahead = torch.stack([yaw.cos(), yaw.sin(), torch.zeros(())])
        left = torch.stack([-yaw.sin(), yaw.cos(), torch.zeros(())])
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack([-left, torch.tensor([0.0, 0, -1]), ahead], 1)
        pose[:3, 3] = 0.4 * ahead + torch.tensor([0, 0, 1.5])
        poses.append(pose)
    ref2cam = torch.linalg.inv(torch.stack(poses))
    step = torch.eye(4)
    step[0, 3] = -0.6  # points move back when the vehicle drives ahead
    views = torch.cat([ref2cam, ref2cam @ torch.linalg.inv(step), ref2cam @ step])
    height, width = ORIGINAL
    K = torch.tensor([[40.0, 0, width / 2], [0, 40.0, height / 2], [0, 0, 1]])
    scale = torch.diag(torch.tensor([SIZE[1] / width, SIZE[0] / height, 1.0]))
    shape = (samples, len(views))
    cameras = Cameras(
        ref2cam=views.expand(*shape, 4, 4).clone(),
        K=K.expand(*shape, 3, 3),
        sizes=torch.tensor([width, height]).expand(*shape, 2),
        frame=torch.tensor(FRAMES).repeat_interleave(count),
        warp=scale.expand(*shape, 3, 3),
    )
    pictures = torch.randint(0, 256, (*shape, 3, height, width), generator=generator, dtype=torch.uint8)
    return OccBatch(
        cameras=cameras,
        images=torch.randn(*shape, 3, *SIZE, generator=generator),
        originals=[list(row) for row in pictures],
        image_masks=[[torch.rand(height, width, generator=generator) > 0.2 for _ in range(count)]] * samples if masks else None,
        tokens=[f'sample_{i}' for i in range(samples)],
    )


@pytest.mark.parametrize('masks', [False, True])
def test_every_part_learns(masks):
    model = build(masks=masks)
    losses = model(batch_of(masks=masks), mode='loss')
    assert list(losses) == ['loss_photometric', 'loss_smooth', 'loss_cross_view']
    sum(losses.values()).backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not still
    assert model.pose_network.net[0].weight.grad.abs().sum() > 0


def test_predictions_and_motions():
    model = build().eval()
    batch = batch_of(samples=2)
    samples = model(batch, [OccDataSample(), OccDataSample()], mode='predict')
    depth = model(batch, mode='tensor')
    assert depth.shape == (2, 3, 1, *SIZE)
    for i, sample in enumerate(samples):
        assert_close(sample.pred_depth, depth[i, :, 0])
        assert sample.pred_motions.shape == sample.gt_motions.shape == (2, 3, 4, 4)
        # by the poses of the data set, points come 0.6 m nearer to the front camera
        assert_close(sample.gt_motions[1, 0, :3, 3], torch.tensor([0.0, 0, -0.6]), rtol=0, atol=1e-5)
    batch.view_missing = torch.zeros(2, 9, dtype=torch.bool)
    batch.view_missing[1, 3:6] = True  # the second sample is the first of its scene
    first = model(batch, [OccDataSample(), OccDataSample()], mode='predict')[1]
    assert first.pred_motions[0].isnan().all() and first.gt_motions[0].isnan().all() and first.pred_motions[1].isfinite().all()
    # untrained, the rig hardly moves
    assert_close(samples[0].pred_motions, torch.eye(4).expand(2, 3, 4, 4), rtol=0, atol=0.1)


def test_given_poses_need_no_network():
    model = build(pose_network=None)
    sum(model(batch_of(), mode='loss').values()).backward()
    sample = model.eval()(batch_of(), [OccDataSample()], mode='predict')[0]
    assert 'pred_motions' not in sample


def test_a_frozen_pose_network_keeps_its_weights_and_statistics():
    model = build()
    model.pose_network.frozen = True
    model.pose_network.requires_grad_(False)
    model.train()
    before = {key: value.clone() for key, value in model.pose_network.state_dict().items()}
    sum(model(batch_of(), mode='loss').values()).backward()
    assert all(torch.equal(value, before[key]) for key, value in model.pose_network.state_dict().items())


def test_pipelines_that_crop_or_leave_images_out_are_refused():
    model, batch = build(), batch_of()
    warp = batch.cameras.warp.clone()
    warp[..., 0, 2] = -5
    cropped = OccBatch(**{**vars(batch), 'cameras': batch.cameras._replace(warp=warp)})
    with pytest.raises(ValueError, match='resize'):
        model(cropped, mode='loss')
    with pytest.raises(ValueError, match='originals'):
        model(OccBatch(**{**vars(batch), 'originals': None}), mode='loss')
    with pytest.raises(ValueError, match='frames'):
        build(frames=(0, 1))
    with pytest.raises(ValueError, match='mode'):
        model(batch, mode='other')
