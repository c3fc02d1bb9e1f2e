"""Reads the model configs of the original code bases, and the inputs of the parity cases."""

import torch

from projects.occ.structures import Cameras, OccBatch, VoxelGrid


def grid_from_official(grid_config, num_classes=18):
    axes = [grid_config[axis] for axis in 'xyz']
    return dict(
        point_cloud_range=[axis[0] for axis in axes] + [axis[1] for axis in axes],
        voxel_size=[axis[2] for axis in axes],
        shape=[round((axis[1] - axis[0]) / axis[2]) for axis in axes],
        frame='ego',
        free_index=num_classes - 1,
        class_names=[f'class_{i}' for i in range(num_classes)],
    )


def image_network(config):
    """Our backbone and neck of an official model config."""
    backbone, neck = dict(config['img_backbone']), dict(config['img_neck'])
    kind, stereo = backbone.pop('type'), config['img_view_transformer']['type'] == 'LSSViewTransformerBEVStereo'
    if kind == 'SwinTransformer':
        assert backbone.pop('return_stereo_feat') == stereo
        backbone['out_indices'] = (0, *backbone['out_indices'])
    backbone['type'] = dict(ResNet='StereoResNet', SwinTransformer='StereoSwinTransformer')[kind]
    if neck['type'] == 'CustomFPN':
        neck = dict(type='SingleLevelFPN', in_channels=neck['in_channels'], out_channels=neck['out_channels'])
    else:
        stages = [backbone['embed_dims'] * 2**stage for stage in backbone['out_indices'][1:]]
        assert neck['type'] == 'FPN_LSS' and neck['in_channels'] == sum(stages)
        neck = dict(type='LSSFPN', in_channels=stages, out_channels=neck['out_channels'])
    return backbone, neck


def resnet_3d(config):
    return dict(
        type='ResNet3D',
        channels=config['num_channels'],
        num_blocks=config['num_layer'],
        strides=config['stride'],
        with_cp=config.get('with_cp', False),
    )


def model_config_from_official(config, reference=True, density=False):
    """Our config of an official model config."""
    backbone, neck = image_network(config)
    lift = config['img_view_transformer']
    stereo = lift['type'] == 'LSSViewTransformerBEVStereo'
    depth_bins, channels = lift['grid_config']['depth'], lift['out_channels']
    depth_net = dict(type='LSSDepthNet', in_channels=lift['in_channels'])
    frames = {}
    if stereo:
        options = lift['depthnet_cfg']
        depth_net.update(type='CameraAwareDepthNet', aspp_channels=options['aspp_mid_channels'])
        frames = dict(
            num_frames=config['num_adj'] + 1,
            frame_net=dict(resnet_3d(config['pre_process']), in_channels=channels),
            cost_bias=options['bias'],
        )
    voxel_neck = config['img_bev_encoder_neck']
    head = dict(type='BEVDetOccHead', loss_occ=dict(type='OccupancyLoss', ce_weight=1.0, lovasz_weight=0.0))
    if density:
        head = dict(type='DensityOccHead', final_softplus=config['final_softplus'], loss_occ=dict(type='DensityOccLoss'))
    return dict(
        type='BEVDetSegmentor',
        grid=grid_from_official(lift['grid_config']),
        img_backbone=backbone,
        img_neck=neck,
        view_encoder=dict(
            type='BEVDetViewEncoder',
            depth_net=depth_net,
            voxel_encoder=resnet_3d(config['img_bev_encoder_backbone']),
            voxel_neck=dict(type='LSSFPN3D', in_channels=voxel_neck['in_channels'], out_channels=voxel_neck['out_channels']),
            channels=channels,
            depth_bins=depth_bins,
            reference_geometry=reference,
            **frames,
        ),
        occ_head=dict(
            head,
            in_channels=voxel_neck['out_channels'],
            channels=config['out_dim'],
            loss_depth=dict(type='LiftedDepthLoss', weight=lift['loss_depth_weight']) if stereo else None,
        ),
    )


def lidar_depths(points, height, width, bins):
    """Depth maps (B, N, H, W) of pixels and depths (B, N, P, 3): rounded pixels, the nearest point counts."""
    lower, upper, _ = bins
    depths = torch.zeros(*points.shape[:2], height * width)
    for maps, rows in zip(depths.flatten(0, 1), points.flatten(0, 1)):
        u, v, depth = rows[:, 0].round(), rows[:, 1].round(), rows[:, 2]
        keep = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth >= lower) & (depth < upper)
        index = (v * width + u).long()[keep]
        nearest = torch.full_like(maps, torch.inf).scatter_reduce(0, index, depth[keep], 'amin')
        maps.copy_(torch.where(nearest.isfinite(), nearest, 0))
    return depths.view(*points.shape[:2], height, width)


def batch_from_official(case, config):
    """OccBatch of the inputs and targets of a parity case, frames 0, -1, ... on the view axis."""
    inputs, targets = case['inputs'], case['targets']
    images = inputs['imgs'].float()
    batch = len(images)
    num_cams = case['num_cams']
    frames = images.shape[1] // num_cams
    sensor2ego, ego2global = (inputs[key].double().view(batch, frames, num_cams, 4, 4) for key in ('sensor2ego', 'ego2global'))
    key_pose = torch.linalg.inv(ego2global[:, 0, 0])[:, None, None]
    scene = torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1, 1, 1)
    scene[..., :3, :3] = inputs['bda'].double()[:, None, None]
    warp = inputs['post_rots'].double().clone()
    warp[..., :2, 2] += inputs['post_trans'][..., :2].double()
    height, width = images.shape[-2:]
    bins = config['img_view_transformer']['grid_config']['depth']
    depths = None
    if 'lidar_points_img' in targets:
        key = lidar_depths(targets['lidar_points_img'], height, width, bins)
        depths = torch.cat([key, torch.zeros(batch, num_cams * (frames - 1), height, width)], dim=1)
    return OccBatch(
        images=images.view(batch, num_cams, frames, *images.shape[2:]).transpose(1, 2).flatten(1, 2),
        image_sizes=torch.tensor([width, height]).expand(batch, frames * num_cams, 2),
        cameras=Cameras(
            ref2cam=torch.linalg.inv(scene @ key_pose @ ego2global @ sensor2ego).flatten(1, 2),
            K=inputs['intrins'].double(),
            sizes=torch.tensor(case['ori_hw'][::-1]).expand(batch, frames * num_cams, 2),
            frame=-torch.arange(frames).repeat_interleave(num_cams),
            warp=warp,
        ),
        scene=inputs['bda'],
        labels=targets['voxel_semantics'].long(),
        masks=dict(camera=targets['mask_camera']),
        depths=depths,
    )


def voxel_grid(config):
    return VoxelGrid.build(grid_from_official(config['img_view_transformer']['grid_config']))
