"""Reads the model configs of the original code."""

from collections.abc import Mapping, Sequence
from typing import Any

OPERATION_ORDER = ('cross_attn', 'norm', 'ffn', 'norm', 'conv')
IMAGE_MEAN_BGR = (103.530, 116.280, 123.675)


def model_config_from_official(
    config: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    free_index: int = 0,
    frame: str = 'lidar',
    ignore_index: int = 255,
    num_cams: int | None = None,
) -> dict[str, Any]:
    """Translates a model config in the option names of SurroundOcc (``configs/surroundocc/surroundocc.py``) into one of ours.

    The voxel loss is the authors'. Options that have no effect there (``num_query``) are left out.

    Args:
        config: The ``model`` dict: ``img_backbone``, ``img_neck``, ``pts_bbox_head`` (or ``head``), ``use_grid_mask``,
            ``use_semantic``.
        class_names: Names of the classes; by default ``class_0``, ``class_1``, ...
        free_index: Class id of empty space.
        frame: Reference frame of the grid, which the original config does not tell.
        ignore_index: Label without meaning.
        num_cams: Real number of cameras, where the original config does not tell it (6 for the one camera of KITTI-360).

    Returns:
        Config of an ``OccSegmentor``; build it with ``mmdet3d.registry.MODELS``.

    Raises:
        ValueError: If the config asks for something that this model family does not have.
    """
    head = config['pts_bbox_head'] if 'pts_bbox_head' in config else config['head']
    transformer = head['transformer_template']
    encoder = transformer['encoder']
    layer = encoder['transformerlayers']
    image = layer['attn_cfgs'][0]
    deformable = image['deformable_attention']
    _require('operation_order', tuple(layer['operation_order']), OPERATION_ORDER)
    _require('number of attn_cfgs', len(layer['attn_cfgs']), 1)
    _require('deformable_attention.num_levels', deformable.get('num_levels', 1), 1)
    embed_dims, channels = list(head['embed_dims']), list(head['conv_output'])
    _require('conv_input', list(head['conv_input']), [embed_dims[-1], *channels[:-1]])

    volumes = list(zip(head['volume_w'], head['volume_h'], head['volume_z']))
    strides = list(head['upsample_strides'])
    shape = tuple(volumes[-1])
    for stride in strides:
        shape = tuple(n * stride for n in shape)
    scales = [shape[0] // cells[0] for cells in volumes]
    _require('volume_w, volume_h, volume_z', volumes, [tuple(n // scale for n in shape) for scale in scales])
    pc_range = tuple(float(v) for v in encoder['pc_range'])
    use_semantic = head.get('use_semantic', config.get('use_semantic', True))
    # without semantics the number means nothing, but a grid tells free from occupied
    num_classes = head['num_classes'] if use_semantic else max(head['num_classes'], 2)
    num_cam_embeds = transformer.get('num_cams', 6)
    grid = dict(
        point_cloud_range=pc_range,
        voxel_size=tuple((pc_range[i + 3] - pc_range[i]) / shape[i] for i in range(3)),
        shape=shape,
        frame=frame,
        free_index=free_index,
        ignore_index=ignore_index,
        class_names=tuple(class_names or (f'class_{i}' for i in range(num_classes))),
    )
    _require('pts_bbox_head.num_classes', num_classes, len(grid['class_names']))
    return dict(
        type='OccSegmentor',
        grid=grid,
        data_preprocessor=dict(
            type='OccDataPreprocessor',
            mean=IMAGE_MEAN_BGR,
            std=(1.0, 1.0, 1.0),
            bgr_to_rgb=False,
            pad_size_divisor=32,
            grid_mask=dict(type='OccGridMask') if config.get('use_grid_mask') else None,
        ),
        img_backbone=dict(config['img_backbone'], type='mmdet.ResNet'),
        img_neck=dict(config['img_neck'], type='mmdet.FPN'),
        view_encoder=dict(
            type='SurroundOccViewEncoder',
            scales=scales,
            in_channels=head['img_channels'],
            embed_dims=embed_dims,
            num_layers=encoder['num_layers'],
            num_cams=num_cams or image.get('num_cams', num_cam_embeds),
            num_cam_embeds=num_cam_embeds,
            cross_attn=_given(deformable, 'num_heads', 'num_points') | _given(image, 'dropout'),
            ffn=dict(feedforward_channels=layer['feedforward_channels'], ffn_drop=layer.get('ffn_dropout', 0.0)),
            num_convs=layer.get('conv_num', 2),
            see_padding=True,
        ),
        occ_head=dict(
            type='SurroundOccHead',
            scales=scales,
            embed_dims=embed_dims,
            channels=channels,
            strides=strides,
            out_indices=head['out_indices'],
            use_semantic=use_semantic,
            loss_occ=dict(
                type='OccupancyLoss',
                ce_weight=1.0,
                lovasz_weight=0.0,
                sem_scal_weight=1.0 if use_semantic else 0.0,
                geo_scal_weight=1.0,
                label_reduction='sparse_last',
                binary=not use_semantic,
            ),
        ),
    )


def _given(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _require(name: str, value: Any, expected: Any) -> None:
    if value != expected:
        raise ValueError(f'{name} of the original config must be {expected} for this model family, got {value}')
