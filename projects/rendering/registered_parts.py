"""The parts of rendered supervision under names that configs can use."""

from collections.abc import Mapping
from typing import Any

from mmdet3d.registry import MODELS

from projects.occ.structures import VoxelGrid

from .density_field import DensityField
from .fields import ClassLogitsField
from .free_logit_field import FreeLogitField
from .key_cameras import KeyFrameCameras
from .losses import Term
from .march import MarchRenderer
from .ray_queries import RayQueries, RayQueryTarget
from .rig_depth import RigDepthLoss
from .splat import SplatRenderer
from .supervision import RenderSupervision, SupervisionGroup
from .targets import ImageTarget, LabelTarget, RayTarget
from .views import MeasuredRays, SampledCameras

for _part in (
    ClassLogitsField,
    DensityField,
    FreeLogitField,
    KeyFrameCameras,
    LabelTarget,
    MarchRenderer,
    MeasuredRays,
    RayQueries,
    RayQueryTarget,
    RayTarget,
    RigDepthLoss,
    SampledCameras,
    SplatRenderer,
):
    MODELS.register_module(module=_part)


@MODELS.register_module(name='ImageTarget')
class ConfiguredImageTarget(ImageTarget):
    """:class:`ImageTarget` from a config block.

    Args:
        poses: Config of a pose network, for example ``dict(type='PoseNetwork', frozen=True, ...)``; None: the data set's poses.
        **kwargs: Other arguments of :class:`ImageTarget`.
    """

    def __init__(self, poses: Mapping[str, Any] | None = None, **kwargs) -> None:
        super().__init__(poses=None if poses is None else MODELS.build(poses), **kwargs)


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
        weight: Factor of all terms.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        field: Mapping[str, Any],
        views: Mapping[str, Any],
        renderer: Mapping[str, Any],
        target: Mapping[str, Any],
        terms: Mapping[str, Mapping[str, Any]],
        weight: float = 1.0,
    ) -> None:
        grid = VoxelGrid.build(grid)
        parts = (MODELS.build(part, default_args=dict(grid=grid)) for part in (field, views, renderer, target))
        super().__init__(*parts, {name: Term(**term) for name, term in terms.items()}, weight)


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
