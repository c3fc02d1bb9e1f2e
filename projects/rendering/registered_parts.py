"""The parts of rendered supervision under names that configs can use."""

from collections.abc import Mapping
from typing import Any

from mmdet3d.registry import MODELS

from projects.occ.structures import VoxelGrid

from .fields import ClassLogitsField
from .losses import Term
from .splat import SplatRenderer
from .supervision import RenderSupervision, SupervisionGroup
from .targets import LabelTarget
from .views import MeasuredRays, SampledCameras

for _part in (ClassLogitsField, LabelTarget, MeasuredRays, SampledCameras, SplatRenderer):
    MODELS.register_module(module=_part)


@MODELS.register_module(name='RenderSupervision')
class ConfiguredSupervision(RenderSupervision):
    """:class:`RenderSupervision` from a config block, for ``model.aggregator``.

    Args:
        grid: Voxel grid; handed to all parts.
        field: Config of the field, for example ``dict(type='ClassLogitsField')``.
        views: Config of the view provider.
        renderer: Config of the renderer.
        target: Config of the target.
        terms: Loss name -> arguments of :class:`Term`.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        field: Mapping[str, Any],
        views: Mapping[str, Any],
        renderer: Mapping[str, Any],
        target: Mapping[str, Any],
        terms: Mapping[str, Mapping[str, Any]],
    ) -> None:
        grid = VoxelGrid.build(grid)
        parts = (MODELS.build(part, default_args=dict(grid=grid)) for part in (field, views, renderer, target))
        super().__init__(*parts, {name: Term(**term) for name, term in terms.items()})


@MODELS.register_module(name='SupervisionGroup')
class ConfiguredGroup(SupervisionGroup):
    """:class:`SupervisionGroup` from a config block, for ``model.aggregator``.

    Args:
        grid: Voxel grid; handed to all supervisions.
        **supervisions: Their config blocks by name, as in ``dict(type='SupervisionGroup', labels=dict(...), rays=dict(...))``.
    """

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], **supervisions: Mapping[str, Any]) -> None:
        grid = VoxelGrid.build(grid)
        super().__init__(
            **{name: MODELS.build(part, default_args=dict(grid=grid)) for name, part in supervisions.items() if part}
        )
