"""Depth of any occupancy network against LiDAR: its prediction is rendered into the cameras."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import METRICS, MODELS
from torch import Tensor, nn

from projects.rendering.splat import SplatRenderer

from ..structures import OccField, OccPrediction, VoxelGrid, sample_cameras
from .depth_metric import DepthMetric

# of a pixel that is covered less nothing but sky is known
MIN_COVERAGE = 0.05


@METRICS.register_module()
class RenderedDepthMetric(DepthMetric):
    """:class:`DepthMetric` for networks that predict voxels: ``pred_depth`` is rendered from ``pred_occ``, or from a field.

    Reads ``pred_occ`` (X, Y, Z) integer, the cameras of the sample (``ref2cam``, ``cam2img``, ``ori_img_wh``), and the measured
    ``depth_pixels``. Occupied voxels are opaque. Depth is that of the renderer divided by its coverage; a pixel that shows
    (almost) nothing is ``max_depth`` away. With ``field`` the prediction is rendered as a supervision sees it, beyond the grid
    too where the network predicts so far; samples then need ``pred_logits``, and ``pred_contracted_logits`` as the case may be
    (``model.keep_logits``).

    Args:
        grid: Voxel grid or its config dict.
        reduction: Images are rendered smaller by this factor.
        renderer: Renderer module ``(OccField, Cameras) -> Rendered``, or arguments of :class:`SplatRenderer`.
        field: Module ``(OccPrediction) -> OccField``, or its config, for example ``model.aggregator.field``; None: hard labels.
        normalise: Divide depth by coverage. False, as GaussianOcc is evaluated: take it as it is, 0 where nothing is.
        **kwargs: Other arguments of :class:`DepthMetric`.

    Raises:
        ValueError: If ``reduction`` is below 1, or an argument of the renderer or of :class:`DepthMetric` is out of range.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        reduction: float = 1,
        renderer: nn.Module | Mapping[str, Any] | None = None,
        field: nn.Module | Mapping[str, Any] | None = None,
        normalise: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.grid = VoxelGrid.build(grid)
        if not reduction >= 1:
            raise ValueError(f'RenderedDepthMetric: reduction must be at least 1, got {reduction}')
        self.reduction = reduction
        self.render = renderer if isinstance(renderer, nn.Module) else SplatRenderer(self.grid, **(renderer or {}))
        if isinstance(field, Mapping):
            field = MODELS.build(field, default_args=dict(grid=self.grid))
        self.field = field
        self.normalise = normalise

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
        field = self._field_of(sample)
        cameras = sample_cameras(sample).reduced(self.reduction)
        maps = []
        for view in range(cameras.num_cameras):
            rendered = self.render(field, cameras.select([view]))
            depth, alpha = rendered.depth[0, 0], rendered.alpha[0, 0]
            if self.normalise:
                depth = torch.where(alpha > MIN_COVERAGE, depth / alpha.clamp(min=MIN_COVERAGE), self.max_depth)
            maps.append(depth)
        return maps

    def _field_of(self, sample: dict) -> OccField:
        token = sample.get('token', '<without token>')
        needed = 'pred_occ' if self.field is None else 'pred_logits'
        if sample.get(needed) is None:
            remedy = 'set model.keep_logits=True' if self.field is not None else 'the model must write it in predict'
            raise ValueError(f'sample {token} has no {needed!r}: {remedy}')
        if self.field is None:
            labels = torch.as_tensor(sample['pred_occ']).long()
            self.grid.check_labels(labels, f'pred_occ of sample {token}')
            return OccField.from_labels(labels[None], self.grid)
        logits, contracted = (sample.get(key) for key in ('pred_logits', 'pred_contracted_logits'))
        self.field.to(torch.as_tensor(logits).device)
        return self.field(
            OccPrediction([torch.as_tensor(logits)[None]], contracted_logits=None if contracted is None else contracted[None])
        )
