"""Frustum proportion loss (MonoScene, arXiv 2112.00726, section 3.4.2): which classes lie behind each part of an image."""

import torch
from torch import Tensor


def frustum_proportion_loss(probs: Tensor, labels: Tensor, boxes: Tensor, num_boxes: int) -> Tensor:
    """Compares the shares of the classes among the voxels of every frustum with those of the labels.

    A frustum holds the voxels that project into one box of the image. Of each frustum that holds a voxel the Kullback-Leibler
    divergence of predicted from labelled shares counts, and classes that the labels of the frustum lack are left out of it. The
    original divides by zero if no frustum holds a voxel; here the loss is then 0.

    Args:
        probs: (P, C), class probabilities of the labelled voxels of the whole batch.
        labels: (P,) int64, 0..C-1.
        boxes: (P,) int64, frustum 0..num_boxes-1 of each voxel, negative for none.
        num_boxes: Number of frustums.

    Returns:
        Mean over the frustums that hold voxels; float32 or wider.
    """
    with torch.autocast(probs.device.type, enabled=False):
        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        # voxels of no frustum go to a row of their own, which is dropped: nothing has to be counted or picked
        rows = torch.where(boxes >= 0, boxes, num_boxes)
        members = (labels[:, None] == torch.arange(probs.shape[1], device=labels.device)).to(probs.dtype)
        empty = probs.new_zeros(num_boxes + 1, probs.shape[1])
        counts = empty.index_add(0, rows, members)[:num_boxes]
        mass = empty.index_add(0, rows, probs)[:num_boxes]
        filled = counts.sum(1, keepdim=True) > 0
        # the sums of rows without voxels are 0; 1 keeps them from becoming NaN, in the gradient too
        target, predicted = (part / torch.where(filled, part.sum(1, keepdim=True), 1.0) for part in (counts, mass))
        smallest = torch.finfo(probs.dtype).tiny
        terms = target * (target.clamp(min=smallest).log() - predicted.clamp(min=smallest).log())
        return terms.sum() / filled.sum().clamp(min=1)
