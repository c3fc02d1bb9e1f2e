"""From image features to the three planes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from projects.occ.models.layers import CameraRebatch, project_points, recompute
from projects.occ.structures import OccBatch, VoxelGrid

from .planes import PLANES, pillar_reference_points, plane_cells, plane_reference_points, plane_size
from .tpvformer_layer import TPVFormerLayer


def _own_buffers_win(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Puts the module's own geometry into a state dict wherever the file has none or that of another grid.

    Equal geometry is taken from the file, so that published weights reproduce their numbers to the last bit.
    """
    for name, own in module.named_buffers(recurse=False):
        given = state_dict.get(prefix + name)
        if given is not None and given.shape == own.shape and torch.allclose(given.to(own), own, atol=1e-5):
            continue
        if given is not None:
            print_log(
                f'{prefix}{name} in the checkpoint belongs to another grid; the one computed from model.grid is used',
                logger='current',
            )
        state_dict[prefix + name] = own.detach().clone()


class TPVFormerEncoder(BaseModule):
    """Reference points and layers.

    Args:
        grid: The voxel grid.
        cells: Cells (x, y, z) of the planes.
        num_layers: Number of layers.
        num_anchors: Anchors per pillar of the planes hw, zh, wz.
        layer: Options of :class:`TPVFormerLayer`.
        with_cp: Recompute the layers in the backward pass instead of keeping their activations.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        cells: tuple[int, int, int],
        num_layers: int,
        num_anchors: Sequence[int],
        layer: Mapping[str, Any],
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.hw_size = plane_size('hw', cells)
        self.lower, self.extent = grid.lower, grid.extent
        for plane, anchors in zip(PLANES, num_anchors):
            self.register_buffer(f'ref_3d_{plane}', pillar_reference_points(plane, cells, anchors, grid.extent))
        for plane in PLANES:
            self.register_buffer(f'ref_2d_{plane}', plane_reference_points(plane, cells))
        self.layers = ModuleList(TPVFormerLayer(**layer) for _ in range(num_layers))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        _own_buffers_win(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def project_anchors(self, ref2img: Tensor, img_wh: Tensor, input_wh: Sequence[float]) -> tuple[list[Tensor], list[Tensor]]:
        """Projects the anchors of all pillars.

        Args:
            ref2img: (B, N, 4, 4), metres -> pixels of the network image.
            img_wh: (B, N, 2), pixels.
            input_wh: (W, H), pixels.

        Returns:
            Per plane the positions (B, N, cells, D, 2), [0, 1] inside the padded image, and the visibility (B, N, cells, D)
            bool.
        """
        positions, visible = [], []
        for plane in PLANES:
            anchors = getattr(self, f'ref_3d_{plane}')
            points = anchors * anchors.new_tensor(self.extent) + anchors.new_tensor(self.lower)
            position, mask = project_points(points[0].transpose(0, 1), ref2img, img_wh, input_wh)
            positions.append(position)
            visible.append(mask)
        return positions, visible

    def forward(
        self,
        planes: Sequence[Tensor],
        hw_pos: Tensor,
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        ref2img: Tensor,
        img_wh: Tensor,
        input_wh: Sequence[float],
    ) -> list[Tensor]:
        """Runs the layers.

        Args:
            planes: Start values of hw, zh, wz, each (B, cells, C).
            hw_pos: (B, cells, C) positional code of plane hw.
            tokens: (B*N, S, C) image features.
            spatial_shapes: (h, w) of every level.
            ref2img: (B, N, 4, 4), metres -> pixels of the network image.
            img_wh: (B, N, 2), pixels.
            input_wh: (W, H), pixels.

        Returns:
            The planes, shapes as given.
        """
        positions, visible = self.project_anchors(ref2img, img_wh, input_wh)
        rebatches = CameraRebatch.of_levels([mask.any(-1) for mask in visible])
        positions = [rebatch.gather_per_camera(p) for rebatch, p in zip(rebatches, positions)]
        for layer in self.layers:
            args = (planes, hw_pos, self.ref_2d_hw, self.hw_size, tokens, spatial_shapes, positions, rebatches)
            planes = recompute(layer, *args) if self.with_cp else layer(*args)
        return list(planes)


@MODELS.register_module()
class TPVFormerViewEncoder(BaseModule):
    """Turns image features into a tri-perspective view, three feature planes over the voxel grid.

    `Tri-Perspective View for Vision-Based 3D Semantic Occupancy Prediction <https://arxiv.org/abs/2302.07817>`_, the occupancy
    variant of the authors' code (``tpvformer04``) that GaussRender builds on. Plane hw has rows along y and columns along x,
    plane zh rows along z and columns along y, plane wz rows along x and columns along z; cells are flattened row by row.

    Args:
        grid: The voxel grid; the planes have ``grid.shape / scale`` cells.
        scale: Voxels per plane cell along x, y, z.
        embed_dims: Channels C of the image features and the planes.
        num_cams: Cameras N; each has a learned embedding.
        num_levels: Levels of the image features.
        num_layers: Encoder layers.
        num_anchors: Anchors per pillar on the planes hw, zh, wz.
        self_attn: Options of :class:`TPVHybridAttention`: ``num_heads=8, num_points=4, num_copies=2, dropout=0.1``.
        cross_attn: Options of :class:`TPVImageCrossAttention`: ``num_heads=8, num_points=(8, 64, 64), dropout=0.1,
            floor_sampling_offset=False``.
        ffn: Options of mmcv's ``FFN``; by default a hidden width of 2C and dropout 0.1.
        norm_cfg: Norm of the layers.
        positional_encoding: Overrides for the positional code of plane hw, by default mmdet's learned one with C/2 features and
            one entry per row and column.
        with_cp: Recompute the layers in the backward pass: less memory, more time, same numbers.
        init_cfg: Extra initialisation, applied last.

    Raises:
        ValueError: If ``scale`` does not divide the grid, or head, point and anchor counts do not fit together.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        scale: Sequence[int] = (2, 2, 2),
        embed_dims: int = 256,
        num_cams: int = 6,
        num_levels: int = 4,
        num_layers: int = 3,
        num_anchors: Sequence[int] = (4, 32, 32),
        self_attn: Mapping[str, Any] | None = None,
        cross_attn: Mapping[str, Any] | None = None,
        ffn: Mapping[str, Any] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        positional_encoding: Mapping[str, Any] | None = None,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        grid = VoxelGrid.build(grid)
        self.cells = plane_cells(grid, scale)
        self.embed_dims, self.num_cams, self.num_levels = embed_dims, num_cams, num_levels
        if len(num_anchors) != len(PLANES):
            raise ValueError(f'num_anchors must hold one number for each of the planes {PLANES}, got {tuple(num_anchors)}')

        self.level_embeds = nn.Parameter(torch.empty(num_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.empty(num_cams, embed_dims))
        rows, columns = plane_size('hw', self.cells)
        self.register_buffer('tpv_mask_hw', torch.zeros(1, rows, columns))
        code = dict(
            type='mmdet.LearnedPositionalEncoding',
            num_feats=embed_dims // 2,
            row_num_embed=rows,
            col_num_embed=columns,
            init_cfg=None,
        )
        self.positional_encoding = MODELS.build(code | dict(positional_encoding or {}))
        self.encoder = TPVFormerEncoder(
            grid,
            self.cells,
            num_layers,
            num_anchors,
            layer=dict(
                embed_dims=embed_dims,
                self_attn=dict(self_attn or {}),
                cross_attn=dict(num_heads=8, num_points=(8, 64, 64))
                | dict(cross_attn or {})
                | dict(num_levels=num_levels, num_anchors=num_anchors),
                ffn=dict(feedforward_channels=2 * embed_dims, ffn_drop=0.1) | dict(ffn or {}),
                norm_cfg=norm_cfg or dict(type='LN'),
            ),
            with_cp=with_cp,
        )
        for plane in PLANES:
            rows, columns = plane_size(plane, self.cells)
            self.add_module(f'tpv_embedding_{plane}', nn.Embedding(rows * columns, embed_dims))
        self._init_embeddings()

    def _init_embeddings(self) -> None:
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)

    def init_weights(self) -> None:
        """Xavier for every table and matrix, N(0, 1) for camera and level embeddings, then the rules of the attentions."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self._init_embeddings()
        super().init_weights()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        _own_buffers_win(self, state_dict, prefix)
        key = prefix + 'cams_embeds'
        given = state_dict.get(key)
        if given is not None and given.dim() == 2 and len(given) > self.num_cams:
            # Single-camera models of the original code carry six rows, of which the first is the one in use.
            print_log(
                f'{key}: the first {self.num_cams} of {len(given)} cameras are taken from the checkpoint', logger='current'
            )
            state_dict[key] = given[: self.num_cams]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _tokens(self, img_feats: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Flattens and joins the levels and adds the embeddings: tokens (B*N, S, C) and (h, w) per level."""
        if len(img_feats) != self.num_levels:
            raise ValueError(
                f'view_encoder expects {self.num_levels} feature levels (model.view_encoder.num_levels), got {len(img_feats)}; '
                'compare with model.img_neck.num_outs'
            )
        for feats in img_feats:
            if feats.dim() != 5 or feats.shape[1:3] != (self.num_cams, self.embed_dims):
                raise ValueError(
                    f'view_encoder expects image features (B, N, C, h, w) with N = {self.num_cams} cameras '
                    f'(model.view_encoder.num_cams) '
                    f'and C = {self.embed_dims} (model.view_encoder.embed_dims), got {tuple(feats.shape)}'
                )
        tokens = [
            feats.flatten(3).transpose(2, 3) + self.cams_embeds[:, None] + self.level_embeds[level]
            for level, feats in enumerate(img_feats)
        ]
        return torch.cat(tokens, dim=2).flatten(0, 1), [tuple(feats.shape[-2:]) for feats in img_feats]

    def forward(self, img_feats: Sequence[Tensor], batch: OccBatch) -> list[Tensor]:
        """Encodes.

        Args:
            img_feats: Levels fine to coarse, each (B, N, C, h, w).
            batch: The batch of the key frame: cameras, image sizes and images, whose size normalises positions.

        Returns:
            Planes hw (B, Y*X, C), zh (B, Z*Y, C) and wz (B, X*Z, C) for X, Y, Z plane cells along the axes.

        Raises:
            ValueError: If the features do not have the shapes that the encoder was built for.
        """
        tokens, spatial_shapes = self._tokens(img_feats)
        batch_size = img_feats[0].shape[0]
        ref2img, img_wh, input_wh = batch.cameras.ref2img, batch.image_sizes, batch.input_wh
        planes = [getattr(self, f'tpv_embedding_{plane}').weight.expand(batch_size, -1, -1) for plane in PLANES]
        hw_pos = self.positional_encoding(self.tpv_mask_hw).flatten(2).transpose(1, 2).expand(batch_size, -1, -1)
        return self.encoder(planes, hw_pos, tokens, spatial_shapes, ref2img, img_wh, input_wh)
