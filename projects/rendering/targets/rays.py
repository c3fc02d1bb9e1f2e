"""Target of RenderOcc and UniOcc: what LiDAR measured along the rays that are rendered."""

from collections.abc import Callable, Mapping
from typing import Any

from projects.occ.structures import Cameras, OccBatch, OccField, Rays, VoxelGrid

from ..rendered import Rendered
from .target import Target, Values

DEPTHS = ('z', 'range')


class RayTarget(Target):
    """Measured depths and classes of rays.

    Args:
        grid: Voxel grid or the dict that describes it.
        depth: What is compared with rendered depth: ``'z'``, along the optical axis; ``'range'``, along the ray, for a renderer
            whose depth is that; None: no depth. RenderOcc compares a rendered range with the measured depth along the axis
            (``'z'`` here and ``depth='range'`` in the renderer).
        labels: Whether rays have classes.

    Raises:
        ValueError: If nothing is left to compare with, or ``depth`` is unknown.
    """

    reads = ('rays',)
    value_kinds = {'features': 'class ids'}
    takes_views = (Rays,)

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], depth: str | None = 'z', labels: bool = True) -> None:
        self.grid = VoxelGrid.build(grid)
        if depth not in (*DEPTHS, None) or not (depth or labels):
            raise ValueError(f'target.depth must be one of {DEPTHS}, or None beside labels=True, got {depth!r} and {labels}')
        self.depth, self.labels = depth, labels
        self.quantities = (('depth',) if depth else ()) + (('features',) if labels else ())

    def __call__(
        self, batch: OccBatch, views: Cameras | Rays, renderer: Callable[[OccField, Cameras | Rays], Rendered]
    ) -> dict[str, Values]:
        """Values of the rays themselves; renders nothing.

        Args:
            batch: Not needed but for messages.
            views: Rays with what was measured.
            renderer: Not needed.

        Returns:
            ``depth`` (B, R), metres, where one was measured; ``features``: class ids (B, R) int64, where there is one.

        Raises:
            ValueError: If the rays have no depths or classes.
        """
        values: dict[str, Values] = {}
        if self.depth:
            if views.depth is None:
                raise ValueError(f'the rays of {batch.tokens} have no measured depths; set target.depth=None')
            depth = views.depth / views.depth_per_range if self.depth == 'range' else views.depth
            values['depth'] = depth, (views.depth > 0) & views.depth.isfinite()
        if self.labels:
            if views.labels is None:
                raise ValueError(
                    f'the rays of {batch.tokens} have no classes: without point classes (lidarseg) or class maps set '
                    'target.labels=False and leave out the terms of features'
                )
            labels = views.labels
            known = (labels != self.grid.ignore_index) & (labels != self.grid.free_index)
            values['features'] = labels.masked_fill(~known, 0), known
        return values
