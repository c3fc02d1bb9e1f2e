"""Reads the model settings of the original code."""

from collections.abc import Mapping, Sequence
from typing import Any

IMAGE_MEAN_RGB = (123.675, 116.28, 103.53)
IMAGE_STD_RGB = (58.395, 57.12, 57.375)
FINEST_STRIDE = 4
SCENE_SQUEEZE = (2, 2, 1)


def model_config_from_official(
    config: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    free_index: int = 0,
    frame: str = 'lidar',
    ignore_index: int = 255,
    class_weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Translates settings in the option names of Symphonies (``configs/**``) into a config of ours.

    Args:
        config: ``embed_dims``, ``num_classes``, ``num_layers``, ``scene_size`` (X, Y, Z), ``voxel_size``, ``voxel_origin`` and,
            where they are not those of the released models, ``view_scales``, ``volume_scale``, ``downsample_z``,
            ``num_queries``, ``frustum_size``, ``scene_pos`` (``num_embeds``, ``squeeze_dims``) and ``encoder`` (``depth``,
            ``base_channels``, ``conv_dim``, ``num_heads``, ``feedforward``, ``enc_layers``, ``total_num_feature_levels``,
            ``gn_groups``). The image size is not needed. Others are ignored.
        class_names: Names of the classes; by default ``class_0``, ``class_1``, ...
        free_index: Class id of empty space.
        frame: Reference frame of the grid; the Velodyne's, which the original config does not tell.
        ignore_index: Label without meaning.
        class_weights: Weights of the cross-entropy, which the original takes from the dataset.

    Returns:
        Config of an ``OccSegmentor``; build it with ``mmdet3d.registry.MODELS``.

    Raises:
        ValueError: If the config asks for something that this model family does not have.
    """
    encoder = dict(config.get('encoder') or {})
    depth, base = encoder.get('depth', 50), encoder.get('base_channels', 64)
    expansion = 4 if depth >= 50 else 1
    in_channels = [base * expansion * 2**stage for stage in range(4)]
    width = encoder.get('conv_dim', 256)
    num_levels = encoder.get('total_num_feature_levels', 4)
    strides = [FINEST_STRIDE * 2**level for level in range(num_levels + 1)]
    view_scales = list(config.get('view_scales', (4, 8, 16)))
    _require('view_scales', set(view_scales) <= set(strides), f'strides among {strides}', view_scales)
    embed_dims = config['embed_dims']
    if FINEST_STRIDE in view_scales:
        _require('encoder.conv_dim', width == in_channels[0], f'{in_channels[0]}, the channels of stride 4', width)

    shape = tuple(config['scene_size'])
    scale, z_scale = config.get('volume_scale', config.get('project_scale', 2)), config.get('downsample_z', 2)
    position = config.get('scene_pos') or {}
    squeeze = tuple(position.get('squeeze_dims', SCENE_SQUEEZE))
    if 'num_embeds' in position:
        tables = tuple(position['num_embeds'])
        group = squeeze[0] * squeeze[1] * squeeze[2]
        fitting = (shape[0] // scale, shape[1] // scale, shape[2] // (scale * z_scale) // group)
        _require('scene_pos.num_embeds', tables == fitting, fitting, tables)
    lower, size = config['voxel_origin'], config['voxel_size']
    sizes = (size,) * 3 if isinstance(size, (int, float)) else tuple(size)
    upper = [low + n * edge for low, n, edge in zip(lower, shape, sizes)]
    num_classes = config['num_classes']
    if class_names is not None:
        _require('num_classes', num_classes == len(class_names), len(class_names), num_classes)
    scene = dict(volume_scale=scale, downsample_z=z_scale, embed_dims=embed_dims)
    return dict(
        type='OccSegmentor',
        grid=dict(
            point_cloud_range=[*lower, *upper],
            voxel_size=size,
            shape=shape,
            frame=frame,
            free_index=free_index,
            ignore_index=ignore_index,
            class_names=tuple(class_names or (f'class_{i}' for i in range(num_classes))),
        ),
        data_preprocessor=dict(type='OccDataPreprocessor', mean=IMAGE_MEAN_RGB, std=IMAGE_STD_RGB, bgr_to_rgb=True),
        img_backbone=dict(
            type='mmdet.ResNet',
            depth=depth,
            base_channels=base,
            stem_channels=base,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            norm_cfg=dict(type='BN', requires_grad=False),
            norm_eval=True,
            style='pytorch',
        ),
        img_neck=dict(
            type='MaskDINOPixelDecoder',
            in_channels=in_channels,
            embed_dims=width,
            num_levels=num_levels,
            num_layers=encoder.get('enc_layers', 6),
            num_heads=encoder.get('num_heads', 8),
            feedforward_channels=encoder.get('feedforward', 2048),
            num_groups=encoder.get('gn_groups', 32),
        ),
        view_encoder=dict(
            type='SymphoniesViewEncoder',
            **scene,
            feat_levels=[strides.index(stride) for stride in view_scales],
            in_channels=width,
            num_layers=config['num_layers'],
            num_queries=config.get('num_queries', 100),
            position_squeeze=squeeze,
        ),
        occ_head=dict(
            type='SymphoniesHead',
            **scene,
            loss_occ=dict(
                type='OccupancyLoss',
                class_weights=None if class_weights is None else [float(weight) for weight in class_weights],
                ce_weight=1.0,
                lovasz_weight=0.0,
                sem_scal_weight=1.0,
                geo_scal_weight=1.0,
                frustum_weight=1.0,
                frustums=config.get('frustum_size', 8),
                aux_weight=0.5,
            ),
        ),
    )


def _require(name: str, fits: bool, expected: Any, value: Any) -> None:
    if not fits:
        raise ValueError(f'{name} of the original config must be {expected} for this model family, got {value}')
