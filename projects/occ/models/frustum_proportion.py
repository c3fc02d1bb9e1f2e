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

    Raises:
        ValueError: If a voxel lies in a frustum beyond the last one.
    """
    if boxes.numel() and int(boxes.max()) >= num_boxes:
        raise ValueError(
            f'frustum_index holds box {int(boxes.max())}, but loss_occ.frustums allows {num_boxes} boxes only; '
            'the pipeline and loss_occ.frustums must name the same number of boxes per side'
        )
    with torch.autocast(probs.device.type, enabled=False):
        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        num_classes = probs.shape[1]
        inside = boxes >= 0
        boxes = boxes[inside]
        counts = torch.bincount(boxes * num_classes + labels[inside], minlength=num_boxes * num_classes)
        counts = counts.view(num_boxes, num_classes).to(probs.dtype)
        mass = probs.new_zeros(num_boxes, num_classes).index_add(0, boxes, probs[inside])
        filled = counts.sum(1) > 0
        target, predicted = counts[filled], mass[filled]
        target, predicted = (share / share.sum(1, keepdim=True) for share in (target, predicted))
        smallest = torch.finfo(probs.dtype).tiny
        terms = target * (target.clamp(min=smallest).log() - predicted.clamp(min=smallest).log())
        return terms.sum() / filled.sum().clamp(min=1)
