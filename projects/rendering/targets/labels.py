"""Target of GaussRender: the label grid, rendered like the prediction."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from projects.occ.structures import Cameras, OccBatch, OccField, Rays, VoxelGrid

from ..rendered import Rendered
from .target import Target, Values


class LabelTarget(Target):
    """Renders the label grid into the same views with the same renderer.

    Ignored voxels are rendered in neither. Depth counts where the label's depth exceeds ``min_depth``.

    Args:
        grid: Voxel grid or the dict that describes it.
        min_depth: Label depth in metres above which a pixel takes part in the depth terms.
        mask_elems: Compare only pixels whose label image is not mostly free, in all terms.
    """

    reads = ('labels',)
    quantities = ('features', 'depth', 'alpha')

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], min_depth: float = 0.1, mask_elems: bool = False) -> None:
        self.grid = VoxelGrid.build(grid)
        self.min_depth = min_depth
        self.mask_elems = mask_elems

    def known(self, batch: OccBatch) -> Tensor:
        """(B, X, Y, Z) bool, voxels that the labels do not ignore."""
        return batch.require_labels('the rendered target') != self.grid.ignore_index

    def field(self, batch: OccBatch, dtype: torch.dtype) -> OccField:
        """The field of the labels, or of those voxels that labelled points hit."""
        labels = batch.require_labels('the rendered target')
        if batch.points is not None:
            labels = labels_from_points(labels, batch.points, self.grid)
        return OccField.from_labels(labels, self.grid, dtype)

    @torch.no_grad()
    def __call__(
        self, batch: OccBatch, views: Cameras | Rays, renderer: Callable[[OccField, Cameras | Rays], Rendered]
    ) -> dict[str, Values]:
        """Renders the labels.

        Args:
            batch: With ``labels``; if it has ``points``, labelled LiDAR points (M, 4) with x, y, z in metres and the class id,
                only voxels that a point hits are shown.
            views: Of the prediction.
            renderer: Of the prediction.

        Returns:
            ``features``, ``depth`` and ``alpha``, with the masks of their terms; without gradient.
        """
        dtype = views.K.dtype if isinstance(views, Cameras) else views.origin.dtype
        image = renderer(self.field(batch, dtype), views)
        mask = image.features.argmax(-1) != self.grid.free_index if self.mask_elems else None
        valid = image.depth > self.min_depth
        return dict(
            features=(image.features, mask),
            depth=(image.depth, valid if mask is None else mask & valid),
            alpha=(image.alpha, mask),
        )


def labels_from_points(labels: Tensor, points: list[Tensor], grid: VoxelGrid) -> Tensor:
    """Label grids that know only the voxels which a labelled LiDAR point hits.

    Args:
        labels: (B, X, Y, Z) int64; only its shape and device count.
        points: One (M, 4) tensor per scene with x, y, z (metres, reference frame) and class id. If several points hit a voxel,
            the last one decides.
        grid: Voxel grid.

    Returns:
        (B, X, Y, Z) int64, ``grid.ignore_index`` in all other voxels.

    Raises:
        ValueError: If there is not one (M, 4) tensor per scene or a class id is unknown.
    """
    if len(points) != len(labels) or any(p.dim() != 2 or p.shape[1] != 4 for p in points):
        raise ValueError(
            f'points must be a list of {len(labels)} tensors (M, 4) with x, y, z, class id, '
            f'got {[tuple(p.shape) for p in points]}'
        )
    sparse = torch.full_like(labels, grid.ignore_index).flatten(1)
    lower, size, shape = (torch.tensor(v, dtype=torch.float64) for v in (grid.lower, grid.voxel_size, grid.shape))
    for target, cloud in zip(sparse, points):
        cloud = cloud.to(labels.device).double()
        index = torch.floor((cloud[:, :3] - lower.to(cloud)) / size.to(cloud))
        inside = ((index >= 0) & (index < shape.to(cloud))).all(-1)
        ids = cloud[inside, 3].long()
        if bool(((ids < 0) | (ids >= grid.num_classes)).any()):
            raise ValueError(f'points: class ids must lie in 0..{grid.num_classes - 1}, got up to {int(ids.max())}')
        index = index[inside].long()
        flat = (index[:, 0] * grid.shape[1] + index[:, 1]) * grid.shape[2] + index[:, 2]
        # duplicate writes have no defined winner: find the last point of every voxel first
        order = torch.arange(len(flat), device=flat.device)
        last = torch.full((grid.num_voxels,), -1, device=flat.device).scatter_reduce_(0, flat, order, 'amax')
        hit = last >= 0
        target[hit] = ids[last[hit]]
    return sparse.view_as(labels)
