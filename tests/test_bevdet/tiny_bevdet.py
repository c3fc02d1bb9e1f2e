"""A small stereo model on a grid of 16 x 12 x 8 voxels, and batches of two cameras that look ahead and to the left."""

import torch
from mmdet3d.registry import MODELS

import projects.bevdet  # noqa: F401  registers the parts
from projects.occ.structures import Cameras, OccBatch

GRID = dict(
    point_cloud_range=[-8, -6, -1, 8, 6, 3],
    voxel_size=[1, 1, 0.5],
    shape=[16, 12, 8],
    frame='ego',
    free_index=4,
    class_names=['car', 'road', 'tree', 'wall', 'free'],
)
SIZE = (96, 64)
BINS = (1.0, 9.0, 0.5)
# columns: the camera's x, y, z axes in the reference frame (x ahead, y left, z up)
AHEAD = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
LEFT = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def model_config(num_frames=2, stereo=True, head='BEVDetOccHead', **encoder):
    depth_net = dict(type='LSSDepthNet', in_channels=8)
    if stereo:
        depth_net = dict(type='CameraAwareDepthNet', in_channels=8, aspp_channels=6)
    frame_net = dict(type='ResNet3D', in_channels=4, channels=(4,), num_blocks=(1,), strides=(1,))
    return dict(
        type='BEVDetSegmentor',
        grid=GRID,
        img_backbone=dict(
            type='StereoResNet',
            depth=18,
            base_channels=4,
            stem_channels=4,
            out_indices=(0, 2, 3) if stereo else (2, 3),
            norm_eval=False,
        ),
        img_neck=dict(type='SingleLevelFPN', in_channels=[16, 32], out_channels=8),
        view_encoder=dict(
            dict(
                type='BEVDetViewEncoder',
                channels=4,
                depth_bins=BINS,
                num_frames=num_frames,
                depth_net=depth_net,
                frame_net=frame_net,
                voxel_encoder=dict(type='ResNet3D', channels=(4, 8), num_blocks=(1, 1), strides=(1, 2)),
                voxel_neck=dict(type='LSSFPN3D', in_channels=12, out_channels=6),
            ),
            **encoder,
        ),
        occ_head=dict(
            type=head,
            in_channels=6,
            channels=8,
            loss_occ=dict(type='OccupancyLoss', ce_weight=1.0, lovasz_weight=0.0, mask='camera')
            if head == 'BEVDetOccHead'
            else dict(type='DensityOccLoss'),
            loss_depth=dict(type='LiftedDepthLoss') if stereo else None,
        ),
    )


def build_model(**options):
    torch.manual_seed(0)
    return MODELS.build(model_config(**options))


def cameras(batch_size=1, num_cams=2, frames=3, shift=0.4):
    """Cameras 1 m above the middle of the grid; every earlier frame lies ``shift`` metres behind, samples differ a little."""
    poses = []
    for sample in range(batch_size):
        for frame in range(frames):
            for camera in range(num_cams):
                pose = torch.eye(4)
                pose[:3, :3] = (AHEAD, LEFT)[camera % 2]
                pose[:3, 3] = torch.tensor([-shift * frame + 0.3 * sample, 0.1 * camera, 1.0])
                poses.append(torch.linalg.inv(pose))
    width, height = SIZE
    views = frames * num_cams
    intrinsics = torch.tensor([[90.0, 0, width], [0, 90, height], [0, 0, 1]])
    return Cameras(
        ref2cam=torch.stack(poses).view(batch_size, views, 4, 4),
        K=intrinsics.expand(batch_size, views, 3, 3),
        sizes=torch.tensor([2 * width, 2 * height]).expand(batch_size, views, 2),
        frame=-torch.arange(frames).repeat_interleave(num_cams),
        warp=torch.diag(torch.tensor([0.5, 0.5, 1])).expand(batch_size, views, 3, 3),
    )


def build_batch(batch_size=1, num_cams=2, frames=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    width, height = SIZE
    views = frames * num_cams
    shape = (batch_size, *GRID['shape'])
    sparse = torch.rand(batch_size, views, height, width, generator=generator)
    return OccBatch(
        images=torch.randn(batch_size, views, 3, height, width, generator=generator),
        image_sizes=torch.tensor([[[width, height]]]).expand(batch_size, views, 2),
        cameras=cameras(batch_size, num_cams, frames),
        labels=torch.randint(0, 5, shape, generator=generator),
        masks=dict(camera=torch.rand(shape, generator=generator) < 0.7),
        depths=torch.where(sparse < 0.02, 10 * torch.rand(sparse.shape, generator=generator), 0),
        tokens=[f'token_{i}' for i in range(batch_size)],
    )


def sample_of(batch, index):
    """One sample of a batch, as a batch."""
    return OccBatch(
        images=batch.images[index : index + 1],
        image_sizes=batch.image_sizes[index : index + 1],
        cameras=batch.cameras.samples([index]),
        labels=batch.labels[index : index + 1],
        masks={name: mask[index : index + 1] for name, mask in batch.masks.items()},
        depths=batch.depths[index : index + 1],
        tokens=[batch.tokens[index]],
    )
