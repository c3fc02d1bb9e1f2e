"""Reads the model configs of the original code bases."""

from collections.abc import Mapping, Sequence
from typing import Any

OPERATION_ORDER = ('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm')
IMAGE_MEAN_BGR = (103.530, 116.280, 123.675)


def model_config_from_official(
    config: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    free_index: int = 0,
    frame: str = 'lidar',
    ignore_index: int = 255,
    num_cams: int | None = None,
) -> dict[str, Any]:
    """Translates a model config in the option names of GaussRender (``config/_base_/model_tpvformer.py``) into one of ours.

    Options that have no effect there (``use_grid_mask``, ``voxel_size``) are left out, and so is the renderer: add an
    ``aggregator`` if wanted. Images are not padded, as in the original.

    Args:
        config: The ``model`` dict: ``img_backbone``, ``img_neck``, ``head``, ``aggregator``.
        class_names: Names of the classes; by default ``class_0``, ``class_1``, ...
        free_index: Class id of empty space, which the original config does not tell.
        frame: Reference frame of the grid, which the original config does not tell.
        ignore_index: Label without meaning.
        num_cams: Real number of cameras, where the original config does not tell it (6 for the one camera of KITTI-360).

    Returns:
        Config of an ``OccSegmentor``; build it with ``mmdet3d.registry.MODELS``.

    Raises:
        ValueError: If the config asks for something that this model family does not have.
    """
    head, lifter = config['head'], config['aggregator']
    encoder = head['encoder']
    layer = encoder['transformerlayers']
    hybrid, image = layer['attn_cfgs']
    deformable = image['deformable_attention']
    _require('operation_order', tuple(layer['operation_order']), OPERATION_ORDER)
    _require('attn_cfgs[0].num_levels', hybrid.get('num_levels', 1), 1)

    cells = (lifter['tpv_w'], lifter['tpv_h'], lifter['tpv_z'])
    scale = tuple(lifter.get(f'scale_{letter}', 1) for letter in 'whz')
    shape = tuple(n * s for n, s in zip(cells, scale))
    pc_range = tuple(float(v) for v in encoder['pc_range'])
    num_classes = lifter['nbr_classes']
    grid = dict(
        point_cloud_range=pc_range,
        voxel_size=tuple((pc_range[i + 3] - pc_range[i]) / shape[i] for i in range(3)),
        shape=shape,
        frame=frame,
        free_index=free_index,
        ignore_index=ignore_index,
        class_names=tuple(class_names or (f'class_{i}' for i in range(num_classes))),
    )
    _require('aggregator.nbr_classes', num_classes, len(grid['class_names']))
    embed_dims = head['embed_dims']
    num_anchors = tuple(encoder['num_points_in_pillar'])
    _require('deformable_attention.num_z_anchors', tuple(deformable.get('num_z_anchors', num_anchors)), num_anchors)
    code = head['positional_encoding']
    view_encoder = dict(
        type='TPVFormerViewEncoder',
        scale=scale,
        embed_dims=embed_dims,
        num_cams=num_cams or head.get('num_cams', 6),
        num_levels=head['num_feature_levels'],
        num_layers=encoder['num_layers'],
        num_anchors=num_anchors,
        self_attn=_given(hybrid, num_heads='num_heads', num_points='num_points', num_copies='num_tpv_queue', dropout='dropout'),
        cross_attn=dict(
            # The original wraps positions unless told otherwise.
            dict(floor_sampling_offset=True)
            | _given(deformable, num_heads='num_heads', num_points='num_points', floor_sampling_offset='floor_sampling_offset'),
            **_given(image, dropout='dropout'),
        ),
        ffn=dict(feedforward_channels=layer['feedforward_channels'], ffn_drop=layer.get('ffn_dropout', 0.0)),
        positional_encoding={k: code[k] for k in ('num_feats', 'row_num_embed', 'col_num_embed') if k in code},
    )
    return dict(
        type='OccSegmentor',
        grid=grid,
        data_preprocessor=dict(type='OccDataPreprocessor', mean=IMAGE_MEAN_BGR, std=(1.0, 1.0, 1.0), bgr_to_rgb=False),
        img_backbone=dict(config['img_backbone'], type='mmdet.ResNet'),
        img_neck=dict(config['img_neck'], type='mmdet.FPN'),
        view_encoder=view_encoder,
        occ_head=dict(
            type='TPVFormerOccHead',
            scale=scale,
            in_dims=lifter['in_dims'],
            hidden_dims=lifter['hidden_dims'],
            out_dims=lifter.get('out_dims') or lifter['in_dims'],
            with_cp=lifter.get('use_checkpoint', True),
            loss_occ=dict(type='OccupancyLoss'),
        ),
    )


def _given(options: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """Options that are present, under our names."""
    return {ours: options[theirs] for ours, theirs in names.items() if theirs in options}


def _require(name: str, value: Any, expected: Any) -> None:
    if value != expected:
        raise ValueError(f'{name} of the original config must be {expected} for this model family, got {value}')
