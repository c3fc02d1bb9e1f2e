"""What a teacher says about the samples of a batch that have no labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """Targets of U of the B samples of a batch, without gradients.

    Attributes:
        index: (U,) int64, positions of these samples in the batch, on the CPU.
        labels: (U, X, Y, Z) int64, classes where the teacher is sure, the ignore index of the grid elsewhere.
        feats: (U, F, X, Y, Z), its voxel features, or None.
    """

    index: Tensor
    labels: Tensor
    feats: Tensor | None = None

    def samples(self, indices: Sequence[int]) -> 'TeacherTargets':
        """The targets of the samples ``indices`` of the batch."""
        places = {int(sample): row for row, sample in enumerate(self.index)}
        pairs = [(new, places[old]) for new, old in enumerate(indices) if old in places]
        rows = [row for _, row in pairs]
        index = torch.tensor([new for new, _ in pairs], dtype=torch.int64)
        return TeacherTargets(index, self.labels[rows], None if self.feats is None else self.feats[rows])
