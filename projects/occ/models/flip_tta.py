"""Test-time augmentation by mirroring."""

from collections.abc import Iterable, Sequence
from itertools import combinations, product

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseTTAModel
from torch import nn

from projects.occ.structures import OccBatch, OccDataSample, OccPrediction
from projects.occ.structures.batch_flips import flip_images, mirror_grid, symmetric_axes


@MODELS.register_module()
class FlipTTA(BaseTTAModel):
    """Averages the predictions of a model for mirrored copies of a batch: images times axes of the grid, 2 x 4 at most.

    The copies are made of the batch on the device, so that files are read once. Volumes are mirrored back, and what is averaged
    is class probabilities, and the density of heads that have one; what is occupied the head decides, as ever. For models that
    were trained with such augmentation (``ResizeCropFlipImages.rand_flip`` for images, ``RandomMirrorGrid`` for the grid).
    Source: UniOcc (https://arxiv.org/abs/2306.09117).

    ``tools/test.py --tta`` puts it around the model of any config; ``tta_model`` of the config holds its arguments.

    Args:
        module: Config of the model, or one with ``encode_decode`` (:class:`OccSegmentor` and those derived from it).
        images: Whether images are mirrored.
        axes: Axes of the grid that are mirrored, of ``'x'`` and ``'y'``; None: those along which the grid is symmetric.
        data_preprocessor: See mmengine.

    Raises:
        ValueError: If the model is of another kind, an axis unknown, or the grid not symmetric along it.
    """

    def __init__(
        self,
        module: dict | nn.Module,
        images: bool = True,
        axes: Sequence[str] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(MODELS.build(module) if isinstance(module, dict) else module, data_preprocessor)
        if not hasattr(self.module, 'encode_decode'):
            raise ValueError(
                f'FlipTTA mirrors voxel predictions, but {type(self.module).__name__} has no encode_decode; test it without'
            )
        self.images = images
        symmetric = symmetric_axes(self.module.grid)
        if axes is None:
            self.axes = symmetric
        elif any(axis not in ('x', 'y') for axis in axes):
            raise ValueError(f"FlipTTA.axes must be of 'x' and 'y', got {tuple(axes)}")
        else:
            self.axes = tuple(sorted({'xy'.index(axis) for axis in axes}))
            if not set(self.axes) <= set(symmetric):
                raise ValueError(
                    f'FlipTTA.axes={tuple(axes)}: the grid must reach as far to both sides of 0, but its range is '
                    f'{self.module.grid.point_cloud_range}; leave the axis out'
                )

    @property
    def training_only_prefixes(self) -> tuple[str, ...]:
        """Those of the model."""
        return self.module.training_only_prefixes

    def copies(self) -> list[tuple[bool, tuple[int, ...]]]:
        """(images mirrored, axes mirrored) of every copy, the batch itself first."""
        subsets = [axes for count in range(len(self.axes) + 1) for axes in combinations(self.axes, count)]
        return list(product((False, True) if self.images else (False,), subsets))

    @torch.no_grad()
    def test_step(self, data: dict) -> list[OccDataSample]:
        """Predicts every copy and writes the labels of the average into the samples.

        Args:
            data: What the data loader gives.
        """
        data = self.module.data_preprocessor(data, False)
        return self.module.add_predictions(self.merge_preds(self._predictions(data['inputs'])), data['data_samples'])

    def _predictions(self, batch: OccBatch) -> Iterable[OccPrediction]:
        for images, axes in self.copies():
            copy = mirror_grid(flip_images(batch) if images else batch, self.module.grid, axes)
            prediction = self.module.encode_decode(copy)
            density = prediction.density
            yield OccPrediction(
                logits=[prediction.logits[-1].flip([2 + axis for axis in axes])],
                density=None if density is None else density.flip([1 + axis for axis in axes]),
            )

    def merge_preds(self, data_samples_list: Iterable[OccPrediction]) -> OccPrediction:
        """The average of predictions, as the head of the model averages, see :meth:`BaseOccHead.average`."""
        return self.module.occ_head.average(data_samples_list)
