"""Moving average of the weights of a training."""

import torch
from mmdet.models.layers import ExpMomentumEMA
from mmdet3d.registry import MODELS
from torch import nn


@MODELS.register_module()
class RampedEMA(ExpMomentumEMA):
    """Exponential moving average of weights and buffers whose decay rises to ``1 - momentum``.

    After update number u, counted from ``start + 1``, ``average = d * average + (1 - d) * weights`` with ``d = (1 - momentum) *
    (1 - exp(-u / gamma))``. For ``EMAHook(ema_type='RampedEMA')``, which validates and saves the average; the defaults are
    those of BEVDet, RenderOcc and UniOcc, where the ramp is nearly over before the first step. The count is saved with the
    average, so that a resumed training goes on.

    Args:
        model: The model to be averaged.
        momentum: Share of the weights in a late update.
        gamma: Updates after which the ramp has risen to 63 percent.
        start: Updates to begin counting from.
        interval: Steps between updates.
        device: Where the average is kept; None: where the model is.
        update_buffers: Average floating-point buffers too, among them the statistics of batch norms; else they are copied.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.001,
        gamma: int = 2000,
        start: int = 10560,
        interval: int = 1,
        device: torch.device | None = None,
        update_buffers: bool = True,
    ) -> None:
        super().__init__(model, momentum, gamma, interval, device, update_buffers)
        self.steps += start
