"""One layer of the Symphonies decoder: instance queries and the scene inform each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.model import BaseModule
from torch import Tensor

from projects.occ.models.layers import CameraRebatch

from .attention import AttentionLayer, DeformableLayer
from .scene_geometry import SceneCells, fold


@dataclass
class SceneView:
    """What a layer knows of the image and the geometry of a batch; the same for all layers.

    Attributes:
        tokens: (B, S, C), image features of all levels, flattened row by row and concatenated.
        sizes: (h, w) of every level.
        cell_positions: (B, X*Y*Z, C), learned positions of the cells.
        cell_planes: (B, X*Y*Z, 2), positions of the cells in the folded volume.
        query_points: (B, I, 2), positions of the instance queries in the image.
        query_planes: (B, I, 2), positions of the instance queries in the folded volume.
        visible: Cells in the field of view.
    """

    tokens: Tensor
    sizes: list[tuple[int, int]]
    cell_positions: Tensor
    cell_planes: Tensor
    query_points: Tensor
    query_planes: Tensor
    visible: CameraRebatch


class SymphoniesLayer(BaseModule):
    """Instance queries look at the image, visible cells at the queries and at the scene, then the queries at the new scene.

    Args:
        embed_dims: Channels C.
        cells: The scene volume.
        num_levels: Levels of image features.
        num_heads: Heads of every attention.
        num_points: Sampling points per head and level in the image.
        num_plane_points: Sampling points per head in the folded volume.
        mlp_ratio: Hidden channels of the feed-forward networks in multiples of C.
        dropout: Rate on the output of deformable attention.
        update_queries: Whether the queries look at the new scene and at each other. The last layer's need not.
        double_residual: See :class:`DeformableLayer`.
        normalize_keys: See :class:`AttentionLayer`.
        attend_to_updated_scene: Whether visible cells look at the scene with what they just learned from the queries. False
            is compatible with published weights: they look at the scene of the layer's begin.
    """

    def __init__(
        self,
        embed_dims: int,
        cells: SceneCells,
        num_levels: int = 3,
        num_heads: int = 8,
        num_points: int = 4,
        num_plane_points: int = 8,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        update_queries: bool = True,
        double_residual: bool = True,
        normalize_keys: bool = False,
        attend_to_updated_scene: bool = False,
    ) -> None:
        super().__init__()
        self.cells = cells
        self.attend_to_updated_scene = attend_to_updated_scene
        common = dict(num_heads=num_heads, dropout=dropout, double_residual=double_residual)
        image = dict(common, num_levels=num_levels, num_points=num_points)
        plane = dict(common, num_levels=1, num_points=num_plane_points)
        self.query_image_cross_deform_attn = DeformableLayer(embed_dims, mlp_ratio=mlp_ratio, **image)
        self.scene_query_cross_attn = AttentionLayer(embed_dims, num_heads, mlp_ratio=0)
        self.scene_self_deform_attn = DeformableLayer(embed_dims, mlp_ratio=mlp_ratio, **plane)
        self.update_queries = update_queries
        if update_queries:
            self.query_scene_cross_deform_attn = DeformableLayer(embed_dims, mlp_ratio=0, **plane)
            self.query_self_attn = AttentionLayer(embed_dims, num_heads, mlp_ratio, normalize_keys)

    def forward(self, scene: Tensor, queries: Tensor, view: SceneView) -> tuple[Tensor, Tensor]:
        """Updates the scene (B, X*Y*Z, C) and the instance queries (B, I, C)."""
        plane_size: Sequence[tuple[int, int]] = [self.cells.plane_size]
        queries = self.query_image_cross_deform_attn(queries, view.tokens, view.query_points, view.sizes)
        positions = view.visible.gather(view.cell_positions)
        seen = self.scene_query_cross_attn(view.visible.gather(scene), queries, positions)
        value = view.visible.replace(scene, seen) if self.attend_to_updated_scene else scene
        planes = view.visible.gather(view.cell_planes)
        seen = self.scene_self_deform_attn(seen, fold(value, self.cells), planes, plane_size, positions)
        scene = view.visible.replace(scene, seen)
        if self.update_queries:
            queries = self.query_scene_cross_deform_attn(queries, fold(scene, self.cells), view.query_planes, plane_size)
            queries = self.query_self_attn(queries)
        return scene, queries
