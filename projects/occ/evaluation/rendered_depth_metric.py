"""Depth of any occupancy network against LiDAR: its prediction is rendered into the cameras."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import METRICS
from torch import Tensor, nn

from projects.rendering.splat import SplatRenderer

from ..structures import OccField, VoxelGrid, sample_cameras
from .depth_metric import DepthMetric

# of a pixel that is covered less nothing but sky is known
MIN_COVERAGE = 0.05


@METRICS.register_module()
class RenderedDepthMetric(DepthMetric):
    """:class:`DepthMetric` for networks that predict voxels: ``pred_depth`` is rendered from ``pred_occ``.

    Reads ``pred_occ`` (X, Y, Z) integer, the cameras of the sample (``ref2cam``, ``cam2img``, ``ori_img_wh``), and the measured
    ``depth_pixels``. Occupied voxels are opaque. Depth is that of the renderer divided by its coverage; a pixel that shows
    (almost) nothing is ``max_depth`` away.

    Args:
        grid: Voxel grid or its config dict.
        reduction: Images are rendered smaller by this factor.
        renderer: Renderer module ``(OccField, Cameras) -> Rendered``, or arguments of :class:`SplatRenderer`.
        **kwargs: Other arguments of :class:`DepthMetric`.

    Raises:
        ValueError: If ``reduction`` is below 1, or an argument of the renderer or of :class:`DepthMetric` is out of range.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        reduction: float = 1,
        renderer: nn.Module | Mapping[str, Any] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.grid = VoxelGrid.build(grid)
        if not reduction >= 1:
            raise ValueError(f'RenderedDepthMetric: reduction must be at least 1, got {reduction}')
        self.reduction = reduction
        self.render = renderer if isinstance(renderer, nn.Module) else SplatRenderer(self.grid, **(renderer or {}))

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Renders every sample and compares; see :meth:`DepthMetric.process`.

        Raises:
            ValueError: If a sample lacks something, or it does not fit the grid.
        """
        super().process(data_batch, [{**sample, 'pred_depth': self.depth_maps(sample)} for sample in data_samples])

    @torch.no_grad()
    def depth_maps(self, sample: dict) -> list[Tensor]:
        """Rendered depth (h, w) of every camera of a sample, metres.

        Raises:
            ValueError: If the sample lacks prediction or cameras, or the prediction does not fit the grid.
        """
        token = sample.get('token', '<without token>')
        if sample.get('pred_occ') is None:
            raise ValueError(f"sample {token} has no 'pred_occ': the model must write it in predict")
        labels = torch.as_tensor(sample['pred_occ']).long()
        self.grid.check_labels(labels, f'pred_occ of sample {token}')
        field = OccField.from_labels(labels[None], self.grid)
        cameras = sample_cameras(sample).reduced(self.reduction)
        maps = []
        for view in range(cameras.num_cameras):
            rendered = self.render(field, cameras.select([view]))
            depth, alpha = rendered.depth[0, 0], rendered.alpha[0, 0]
            maps.append(torch.where(alpha > MIN_COVERAGE, depth / alpha.clamp(min=MIN_COVERAGE), self.max_depth))
        return maps
