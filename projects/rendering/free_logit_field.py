"""The field of a network whose logit of free space is the opposite of opacity (GaussianOcc)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from projects.occ.structures import ContractedGrid, OccField, OccPrediction, VoxelGrid

BACKGROUNDS = ('zeros', 'free')
DENSITIES = (None, 'logit', 'free')


class FreeLogitField(nn.Module):
    """Opacity from the logit of the free class alone; all logits are blended as they are.

    Args:
        grid: Voxel grid or the dict that describes it.
        contraction: ``ContractedGrid`` on which the network predicts (``OccPrediction.contracted_logits``); None: the finest
            logits on ``grid``, from any host.
        scale: Standard deviation of the Gaussians, metres.
        far_scales: Pairs (distance from the origin, factor) by which distant Gaussians are larger, from near to far; the last
            one that is exceeded counts.
        background: What is seen where nothing is: ``'zeros'``, as in the original, whose grid reaches to the horizon; or
            ``'free'``, ``free_logit`` for the free class and zeros else, for grids that end, behind which there is sky.
        free_logit: See ``background``.
        density: What a ray marcher reads as density. None: it follows from the opacity; ``'logit'``: the opposite of the free
            logit itself, for OccNeRF's renderers; ``'free'``: the free logit, as GaussianOcc's renderer ``density`` does
            although it means the opposite.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        contraction: ContractedGrid | Mapping[str, Any] | None = None,
        scale: float = 0.2,
        far_scales: Sequence[Sequence[float]] = (),
        background: str = 'zeros',
        free_logit: float = 5.0,
        density: str | None = None,
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        self.contraction = None if contraction is None else ContractedGrid.build(contraction)
        if background not in BACKGROUNDS or scale <= 0:
            raise ValueError(
                f'field: background must be one of {BACKGROUNDS} and scale above 0 metres, got {background!r} and {scale}'
            )
        if density not in DENSITIES:
            raise ValueError(f'field.density must be one of {DENSITIES}, got {density!r}')
        self.density = density
        lattice = self.contraction or self.grid
        distance = lattice.centers().norm(dim=-1)
        scales = torch.full_like(distance, scale)
        for beyond, factor in far_scales:
            scales = torch.where(distance > beyond, scale * factor, scales)
        self.register_buffer('scales', scales[..., None], persistent=False)
        color = torch.zeros(self.grid.num_classes)
        if background == 'free':
            color[self.grid.free_index] = free_logit
        self.register_buffer('background', color, persistent=False)

    def forward(self, prediction: OccPrediction) -> OccField:
        """Turns a prediction into a field.

        Raises:
            ValueError: If the prediction lacks logits on the contraction, or they have another shape.
        """
        lattice = self.contraction or self.grid
        logits = prediction.logits[-1] if self.contraction is None else prediction.contracted_logits
        if logits is None:
            raise ValueError('the field has a contraction, but the head predicts no contracted_logits; give it the same one')
        if tuple(logits.shape[1:]) != (self.grid.num_classes, *lattice.shape):
            raise ValueError(
                f'the logits must be (B, C, X, Y, Z) with C = {self.grid.num_classes} and (X, Y, Z) = {lattice.shape}, got '
                f'{tuple(logits.shape)}; head and field need the same contraction and classes'
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits if logits.dtype == torch.float64 else logits.float()
            free = logits[:, self.grid.free_index]
            opacity: Tensor = (-free).sigmoid()
        return OccField(
            grid=lattice,
            opacity=opacity,
            features=logits,
            background=self.background.to(logits.dtype),
            scales=self.scales.to(logits.dtype).expand(len(logits), *lattice.shape, 3),
            density={None: None, 'logit': -free, 'free': free}[self.density],
        )
