"""A supervision of one's own: what covers the image, and what is sky, must agree with the label."""

from collections.abc import Callable

import torch
from mmdet3d.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from projects.occ.structures import Cameras, OccBatch, OccField, Rays, VoxelGrid
from projects.rendering import Rendered, Target
from projects.rendering.losses import PIXEL_ERRORS, TAKES


@MODELS.register_module()
class SilhouetteTarget(Target):
    """Which pixels show anything of the label: 1 where its coverage exceeds one half, else 0."""

    reads = ('labels',)  # of OccBatch
    quantities = ('alpha',)  # of Rendered

    def __init__(self, grid: dict) -> None:
        self.grid = VoxelGrid.build(grid)

    def known(self, batch: OccBatch) -> Tensor:
        """(B, X, Y, Z) bool, voxels that prediction and label may show."""
        return batch.labels != self.grid.ignore_index

    @torch.no_grad()
    def __call__(
        self, batch: OccBatch, views: Cameras | Rays, renderer: Callable[[OccField, Cameras | Rays], Rendered]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """``alpha`` (B, V, H, W) and no mask: all pixels count."""
        image = renderer(OccField.from_labels(batch.labels, self.grid), views)
        return dict(alpha=((image.alpha > 0.5).float(), None))


def silhouette_bce(pred: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of coverages (B, V, H, W) in [0, 1), pixel by pixel."""
    return F.binary_cross_entropy(pred.clamp(1e-4, 1 - 1e-4), target, reduction='none')


# the name by which terms of a config find it, and what it compares
PIXEL_ERRORS['silhouette_bce'] = silhouette_bce
TAKES['silhouette_bce'] = (('alpha',), 'image')
