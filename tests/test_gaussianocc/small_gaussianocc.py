"""The network of the parity case, built from its sizes, and its weights under our names."""

import torch
from mmdet.models import ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet3d.registry import MODELS

from projects.gaussianocc.checkpoint import POSE_NETWORK, to_project
from projects.occ.structures import Cameras, OccBatch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@MODELS.register_module()
class ShallowResNet(ResNet):
    """ResNet whose depth is given as blocks per stage: bottlenecks of three stages or basic blocks of four."""

    def __init__(self, blocks, **kwargs):
        self.arch_settings = {0: (BasicBlock if len(blocks) == 4 else Bottleneck, tuple(blocks))}
        super().__init__(
            depth=0, num_stages=len(blocks), strides=(1, 2, 2, 2)[: len(blocks)], dilations=(1,) * len(blocks), **kwargs
        )


def backbone(blocks, base_channels, out_indices, **kwargs):
    return dict(type='ShallowResNet', blocks=blocks, base_channels=base_channels, out_indices=out_indices, **kwargs)


def contraction(config):
    x0, x1, y0, y1, z0, z1 = config['real_size']
    shape = (config['X'], config['Y'], config['Z'])
    return dict(point_cloud_range=(x0, y0, z0, x1, y1, z1), shape=shape, ratio=config['contracted_ratio'])


def occ3d_grid(config):
    classes = config['semantic_classes']
    x0, x1, y0, y1, z0, z1 = config['real_size']
    return dict(
        point_cloud_range=(x0, y0, z0, x1, y1, z1),
        voxel_size=0.4,
        shape=(200, 200, 16),
        frame='ego',
        free_index=classes - 1,
        class_names=[f'class_{i}' for i in range(classes)],
    )


def model_config(config, weights):
    """Config of the segmentor without the pose network; widths that the config lacks are read from the weights."""
    neck = [
        weights[f'encoder.{name}.weight'].shape for name in ('upsampling_layer.conv.3', 'Upsampling_4.conv.3', 'depth_layer')
    ]
    base = config['eb']
    on_grid = dict(contraction=contraction(config))
    return dict(
        type='OccSegmentor',
        grid=occ3d_grid(config),
        img_backbone=backbone(config['enc_blocks'], base, (1, 2)),
        img_neck=dict(
            type='GaussianOccNeck',
            in_channels=(8 * base, 16 * base),
            mid_channels=(neck[0][0], neck[1][0]),
            out_channels=neck[2][0],
        ),
        view_encoder=dict(type='AverageLiftViewEncoder', align='mixed', **on_grid),
        occ_head=dict(
            type='HourglassOccHead',
            in_dims=neck[2][0],
            channels=2 * config['cnn_planes'],
            with_cp=False,
            loss_occ=dict(type='OccupancyLoss', ce_weight=1.0),
            **on_grid,
        ),
    )


def pose_config(config):
    base = config['pb']
    return dict(
        type='PoseNetwork',
        backbone=backbone(config['pose_blocks'], base, (3,), in_channels=6),
        in_channels=8 * base,
        hidden_channels=config['pw'],
    )


def official_weights(case):
    """All weights of the case under the names of a published folder."""
    return {f'{network}.{key}': value for network, part in case['state_dict'].items() for key, value in part.items()}


def build(case):
    """Segmentor and pose network with the weights of the case, in evaluation mode."""
    weights = official_weights(case)
    ours = to_project.state_dict(weights, 'authors')
    model = MODELS.build(model_config(case['config'], weights))
    model.load_state_dict({key: value for key, value in ours.items() if not key.startswith(POSE_NETWORK)}, strict=True)
    pose = MODELS.build(pose_config(case['config']))
    pose.load_state_dict({k.removeprefix(POSE_NETWORK): v for k, v in ours.items() if k.startswith(POSE_NETWORK)}, strict=True)
    return model.eval(), pose.eval()


def normalised(images):
    """uint8 (..., 3, H, W) as the encoder wants it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def batch(case, images, ref2cam=None, K=None):
    """The case's cameras, or others, with network images (B, N, 3, H, W)."""
    inputs, config = case['inputs'], case['config']
    ref2cam = torch.linalg.inv(inputs['cam2ego'])[None] if ref2cam is None else ref2cam
    K = inputs['K_scaled'][0][None, :, :3, :3].expand(len(ref2cam), -1, 3, 3)[:, : ref2cam.shape[1]] if K is None else K
    sizes = torch.tensor([config['W'], config['H']]).expand(*ref2cam.shape[:2], 2)
    return OccBatch(cameras=Cameras(ref2cam, K, sizes), images=images, image_sizes=sizes.float())
