"""From image features and a depth map to the scene volumes of Symphonies."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from projects.occ.models.layers import CameraRebatch, recompute
from projects.occ.models.voxel_views import image_intrinsics, project_grid
from projects.occ.structures import OccBatch, VoxelGrid

from .aspp import VolumeASPP
from .attention import DeformableLayer
from .scene_geometry import (
    PLANE_REFERENCES,
    SURFACE_ROUNDINGS,
    SceneCells,
    back_project,
    cell_indices,
    cells_of_points,
    mark_cells,
    merge_heights,
    plane_reference,
    to_volume,
)
from .scene_position import ScenePositionEmbedding
from .symphonies_layer import SceneView, SymphoniesLayer


@MODELS.register_module()
class SymphoniesViewEncoder(BaseModule):
    """Learned scene cells and instance queries that inform each other over several layers.

    The cells on the surface that the depth map shows first look at the image. Then every layer exchanges information between
    image, queries and the cells in the field of view. The last step is an ASPP over the whole volume. In training there is one
    volume per layer, in evaluation the last one only. One camera per sample; any batch size.

    Attention and geometry run in float32 whatever the autocast state. The samples of a batch may have different numbers of
    visible cells; if the depth map shows no cell at all, nothing is proposed (the original fails).

    The options ``surface_rounding``, ``plane_reference``, ``truncate_pixels``, ``double_residual``, ``normalize_keys``,
    ``attend_to_updated_scene`` and ``aspp_layer`` default to what published weights were trained with.

    Args:
        grid: The voxel grid.
        volume_scale: Voxels per scene cell along each axis.
        downsample_z: Further factor along z.
        feat_levels: Which of the neck's maps are used, fine to coarse (0: stride 4, 1: stride 8, ...).
        in_channels: Channels of these maps. If they are ``embed_dims``, there are no projections.
        embed_dims: Channels C.
        num_layers: Number of layers.
        num_queries: Number I of instance queries.
        num_heads: Heads of every attention.
        num_points: Sampling points per head and level in the image.
        num_plane_points: Sampling points per head in the folded volume.
        mlp_ratio: Hidden channels of the feed-forward networks in multiples of C.
        dropout: Rate on the output of deformable attention.
        position_squeeze: See :class:`ScenePositionEmbedding`.
        aspp_dilations: Dilations of the ASPP.
        aspp_layer: Index of the layer behind which the ASPP runs. 2 as published, also for other numbers of layers: with fewer
            it never runs and its parameters are frozen. None: behind the last one.
        surface_rounding: How points get their cell, ``'compatible'`` or ``'floor'``, see :func:`cells_of_points`.
        plane_reference: Where cells lie in the folded volume, ``'compatible'`` or ``'centred'``, see :func:`plane_reference`.
        truncate_pixels: See :func:`merge_heights`.
        double_residual: See :class:`DeformableLayer`.
        normalize_keys: See :class:`AttentionLayer`.
        attend_to_updated_scene: See :class:`SymphoniesLayer`.
        with_cp: Recompute proposal, layers and ASPP in the backward pass: less memory, more time, same numbers.
        init_cfg: Initialisation, see mmengine.

    Raises:
        ValueError: If grid and factors do not fit together, or an option has an unknown value.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        volume_scale: int = 2,
        downsample_z: int = 2,
        feat_levels: Sequence[int] = (0, 1, 2),
        in_channels: int = 256,
        embed_dims: int = 128,
        num_layers: int = 3,
        num_queries: int = 100,
        num_heads: int = 8,
        num_points: int = 4,
        num_plane_points: int = 8,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        position_squeeze: Sequence[int] = (2, 2, 1),
        aspp_dilations: Sequence[int] = (1, 3),
        aspp_layer: int | None = 2,
        surface_rounding: str = 'compatible',
        plane_reference: str = 'compatible',
        truncate_pixels: bool = True,
        double_residual: bool = True,
        normalize_keys: bool = False,
        attend_to_updated_scene: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, known in (
            ('surface_rounding', surface_rounding, SURFACE_ROUNDINGS),
            ('plane_reference', plane_reference, PLANE_REFERENCES),
        ):
            if value not in known:
                raise ValueError(f'view_encoder.{name} must be one of {known}, got {value!r}')
        self.grid = VoxelGrid.build(grid)
        self.cells = SceneCells(self.grid, volume_scale, downsample_z)
        self.feat_levels, self.in_channels = tuple(feat_levels), in_channels
        self.surface_rounding, self.plane_reference = surface_rounding, plane_reference
        self.truncate_pixels, self.with_cp = truncate_pixels, with_cp
        self.aspp_layer = num_layers - 1 if aspp_layer is None else aspp_layer
        self.out_projs = None
        if in_channels != embed_dims:
            self.out_projs = ModuleList(
                nn.Sequential(
                    nn.Conv2d(in_channels, embed_dims, kernel_size=1),
                    nn.BatchNorm2d(embed_dims),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(embed_dims, embed_dims, kernel_size=1),
                )
                for _ in self.feat_levels
            )
        self.query_embed = nn.Embedding(num_queries, embed_dims)
        self.pts_embed = nn.Embedding(num_queries, 2)
        self.scene_embed = nn.Embedding(self.cells.number, embed_dims)
        self.scene_pos = ScenePositionEmbedding(embed_dims, self.cells.shape, position_squeeze)
        deformable = dict(
            num_heads=num_heads,
            num_levels=len(self.feat_levels),
            num_points=num_points,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            double_residual=double_residual,
        )
        self.voxel_proposal = DeformableLayer(embed_dims, **deformable)
        self.layers = ModuleList(
            SymphoniesLayer(
                embed_dims,
                self.cells,
                **deformable,
                num_plane_points=num_plane_points,
                update_queries=index < num_layers - 1,
                normalize_keys=normalize_keys,
                attend_to_updated_scene=attend_to_updated_scene,
            )
            for index in range(num_layers)
        )
        self.aspp = VolumeASPP(embed_dims, aspp_dilations)
        if self.aspp_layer >= num_layers:
            self.aspp.requires_grad_(False)

    def _run(self, module: nn.Module, *args: Any) -> Any:
        return recompute(module, *args) if self.with_cp else module(*args)

    def forward(self, img_feats: Sequence[Tensor], batch: OccBatch) -> list[Tensor]:
        """Encodes.

        Args:
            img_feats: Maps of the neck, fine to coarse, each (B, 1, F, h, w).
            batch: The batch of the key frame: cameras, image sizes and ``depths`` (B, 1, H, W), metres along the optical axis,
                not positive or not finite where unknown. If there are ``voxel_pixels`` (B, 1, P, 2) and ``voxel_visible`` (B,
                1, P) of the P voxels that are ``volume_scale`` times as long as the grid's, they need not be computed from the
                cameras.

        Returns:
            Volumes (B, C, X, Y, Z), float32 up to the ASPP: one per layer in training, the last one in evaluation.

        Raises:
            ValueError: If features or depth maps are missing or do not have the shapes that the encoder expects.
        """
        feats = self._select(img_feats)
        batch_size = len(feats[0])
        if self.out_projs is not None:
            feats = [proj(feat) for proj, feat in zip(self.out_projs, feats)]
        with torch.autocast(feats[0].device.type, enabled=False):
            view, surface, pixels = self._look(feats, batch)
            scene = self.scene_embed.weight.expand(batch_size, -1, -1)
            shown = [surface.gather(part) for part in (scene, pixels, view.cell_positions)]
            proposed = self._run(self.voxel_proposal, shown[0], view.tokens, shown[1], view.sizes, shown[2])
            scene = surface.replace(scene, proposed)
        queries = self.query_embed.weight.expand(batch_size, -1, -1)
        volumes = []
        for index, layer in enumerate(self.layers):
            with torch.autocast(scene.device.type, enabled=False):
                scene, queries = self._run(layer, scene.float(), queries, view)
            volume = to_volume(scene, self.cells.shape)
            if index == self.aspp_layer:
                volume = self._run(self.aspp, volume)
                scene = volume.flatten(2).transpose(1, 2)
            volumes.append(volume)
        return volumes if self.training else volumes[-1:]

    def _select(self, img_feats: Sequence[Tensor]) -> list[Tensor]:
        if len(img_feats) <= max(self.feat_levels):
            raise ValueError(
                f'view_encoder.feat_levels {self.feat_levels} needs {max(self.feat_levels) + 1} feature maps, '
                f'got {len(img_feats)}; compare with model.img_neck.num_levels'
            )
        feats = [img_feats[level] for level in self.feat_levels]
        for feat in feats:
            if feat.dim() != 5 or feat.shape[1:3] != (1, self.in_channels):
                raise ValueError(
                    f'Symphonies looks at one camera and expects image features (B, 1, F, h, w) with F = {self.in_channels} '
                    f'(model.view_encoder.in_channels), got {tuple(feat.shape)}; set cam_names of the dataset to one camera'
                )
        return [feat.squeeze(1) for feat in feats]

    @staticmethod
    def _depths(batch: OccBatch) -> Tensor:
        if batch.depths is None:
            raise ValueError(
                'Symphonies needs a depth map of every image, for prediction too: put LoadDepthMaps into the pipelines of the '
                'datasets before PackOccInputs (docs/datasets.md says how to make the files); the inputs hold no depths'
            )
        width, height = batch.input_wh
        expected = (batch.batch_size, 1, height, width)
        if batch.depths.shape != expected:
            raise ValueError(
                f'the depth maps must have the size of the network images, (B, 1, H, W) = {expected}, '
                f'got {tuple(batch.depths.shape)}; resize and crop both alike'
            )
        return batch.depths.squeeze(1)

    def _look(self, feats: list[Tensor], batch: OccBatch) -> tuple[SceneView, CameraRebatch, Tensor]:
        """The geometry of a batch: what all layers know, the surface cells and the normalised pixels of all cells."""
        batch_size, device = len(feats[0]), feats[0].device
        depths = self._depths(batch)
        pixels, visible = self._projections(batch)
        cameras, input_wh = batch.cameras, batch.input_wh
        points = back_project(depths, image_intrinsics(cameras)[:, 0], cameras.ref2cam[:, 0].double())
        shown = cells_of_points(points, self.cells, self.surface_rounding).flatten(1, 2)
        known = (torch.isfinite(depths) & (depths > 0)).flatten(1)
        marked = mark_cells(shown, known, self.cells)
        surface, seen = CameraRebatch.of_levels([marked.unsqueeze(1), visible.unsqueeze(1)])

        query_points = self.pts_embed.weight.float().sigmoid()
        size = query_points.new_tensor(input_wh)
        column, row = (query_points.detach() * size).minimum(size - 1).long().unbind(-1)
        query_cells = shown[:, row * input_wh[0] + column]
        cells = plane_reference(cell_indices(self.cells, device), self.cells, self.plane_reference)
        positions = self.scene_pos()
        view = SceneView(
            tokens=torch.cat([feat.float().flatten(2) for feat in feats], -1).transpose(1, 2),
            sizes=[tuple(feat.shape[-2:]) for feat in feats],
            cell_positions=positions.expand(batch_size, -1, -1),
            cell_planes=cells.expand(batch_size, -1, -1),
            query_points=query_points.expand(batch_size, -1, -1),
            query_planes=plane_reference(query_cells, self.cells, self.plane_reference),
            visible=seen,
        )
        return view, surface, (pixels + 0.5) / size

    def _projections(self, batch: OccBatch) -> tuple[Tensor, Tensor]:
        """Pixels (B, X*Y*Z, 2) and visibility (B, X*Y*Z) of the scene cells."""
        pixels, visible = batch.voxel_pixels, batch.voxel_visible
        if pixels is None or visible is None:
            pixels, visible = project_grid(self.grid, batch.cameras, batch.image_sizes, self.cells.scale)
        batch_size = batch.batch_size
        number = self.cells.number * self.cells.z_scale
        if pixels.shape != (batch_size, 1, number, 2) or visible.shape != (batch_size, 1, number):
            raise ValueError(
                f'voxel_pixels must be (B, 1, P, 2) and voxel_visible (B, 1, P) with B = {batch_size} and P = {number} voxels '
                f'of {self.cells.scale} times the length (view_encoder.volume_scale), got {tuple(pixels.shape)} and '
                f'{tuple(visible.shape)}; the pipeline must project with the same scale'
            )
        return merge_heights(pixels[:, 0], visible[:, 0], self.cells, self.truncate_pixels)
