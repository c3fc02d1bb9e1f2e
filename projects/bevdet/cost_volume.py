"""Stereo matching between two frames of one camera."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import inside_image

GROUP = 4  # channels that the original compares at a time


@torch.no_grad()
def cost_volume(
    current: Tensor, previous: Tensor, positions: Tensor, bias: float, reference: bool = False, chunk: int = 32
) -> Tensor:
    """Probability of every depth bin from how well the features of two frames agree there; without gradients.

    The cost of a bin is the sum over the channels of the absolute difference between the features of the current frame and
    those of the earlier one, sampled where the point of the bin appears there. Points outside the earlier image cost ``bias``
    more.

    Args:
        current: (M, C, h, w), features of M cameras.
        previous: (M, C, h, w), features of the same cameras in the earlier frame.
        positions: (M, D, h, w, 2), positions of the points in the earlier image in the unit of ``grid_sample``, with aligned
            corners if ``reference``.
        bias: Added cost outside the earlier image.
        reference: As published weights were trained: a point counts as outside where one sampled channel is 0, which ReLU
            features often are inside too, and channels behind the last multiple of four are not compared.
        chunk: Channels that are sampled at once; affects memory and time only.

    Returns:
        (M, D, h, w), sums to 1 over the bins. float32.
    """
    cameras, bins, height, width = positions.shape[:4]
    channels = current.shape[1] // GROUP * GROUP if reference else current.shape[1]
    costs = []
    with torch.autocast(current.device.type, enabled=False):
        for here, there, grid in zip(current.float(), previous.float(), positions.float()):
            flat = grid.reshape(1, bins * height, width, 2)
            cost = here.new_zeros(bins, height, width)
            for start in range(0, channels, chunk):
                stop = min(start + chunk, channels)
                sampled = F.grid_sample(there[None, start:stop], flat, align_corners=reference)[0]
                sampled = sampled.view(-1, bins, height, width)
                if reference and start <= channels - GROUP < stop:
                    outside = sampled[channels - GROUP - start] == 0
                cost += (sampled - here[start:stop, None]).abs_().sum(0)
            if not reference:
                outside = ~inside_image(grid)
            costs.append((-(cost + bias * outside)).softmax(0))
    return torch.stack(costs)
