"""Lists of the queries that each camera sees."""

from collections.abc import Sequence

import torch
from torch import Tensor


class CameraRebatch:
    """Packs the queries that a camera sees into short rows, so that nothing is computed for the others.

    Every (sample, camera) pair has its own list of queries in rising order. The lists are padded with zeros to the longest one;
    padding is never read back. Only memory and time depend on this, the result does not.

    Args:
        seen: (B, N, Q) bool, True where camera n of sample b sees query q.
        lengths: Length of the longest list and number of entries of all lists, if they are known; else a GPU is waited for. See
            :meth:`of_levels`.

    Attributes:
        length: Length L of the longest list, at least 1.
    """

    def __init__(self, seen: Tensor, lengths: tuple[int, int] | None = None) -> None:
        self.batch_size, self.num_cams, self.num_queries = seen.shape
        longest, total = _lengths([seen])[0] if lengths is None else lengths
        self.length = max(longest, 1)
        # the size is known, so nothing is waited for
        self._sample, self._camera, self._query = torch.nonzero_static(seen, size=total).unbind(1)
        self._rank = (seen.cumsum(-1) - 1)[self._sample, self._camera, self._query]
        self._num_seeing = seen.sum(1).clamp(min=1).unsqueeze(-1)

    @classmethod
    def of_levels(cls, seen: Sequence[Tensor]) -> list['CameraRebatch']:
        """One packing for each (B, N, Q_l) mask; a GPU is waited for once, not once per level."""
        return [cls(mask, lengths) for mask, lengths in zip(seen, _lengths(seen), strict=True)]

    def _pad(self, rows: Tensor) -> Tensor:
        packed = rows.new_zeros(self.batch_size, self.num_cams, self.length, *rows.shape[1:])
        packed[self._sample, self._camera, self._rank] = rows
        return packed.flatten(0, 1)

    def gather(self, queries: Tensor) -> Tensor:
        """Packs what all cameras share: (B, Q, ...) -> (B*N, L, ...)."""
        return self._pad(queries[self._sample, self._query])

    def gather_per_camera(self, values: Tensor) -> Tensor:
        """Packs what each camera has of its own: (B, N, Q, ...) -> (B*N, L, ...)."""
        return self._pad(values[self._sample, self._camera, self._query])

    def scatter_mean(self, packed: Tensor) -> Tensor:
        """Averages over the cameras that see a query: (B*N, L, C) -> (B, Q, C), zero where no camera does."""
        rows = packed.unflatten(0, (self.batch_size, self.num_cams))[self._sample, self._camera, self._rank]
        total = rows.new_zeros(self.batch_size * self.num_queries, rows.shape[-1])
        total = total.index_add(0, self._sample * self.num_queries + self._query, rows)
        return total.view(self.batch_size, self.num_queries, -1) / self._num_seeing

    def replace(self, queries: Tensor, packed: Tensor) -> Tensor:
        """Puts packed rows back in the place of the queries that they came from.

        Only for one camera (N = 1); with more, a query could be replaced by several.

        Args:
            queries: (B, Q, C), stays as it is.
            packed: (B, L, C).

        Returns:
            (B, Q, C), the dtype of ``queries``.
        """
        rows = packed.unflatten(0, (self.batch_size, self.num_cams))[self._sample, self._camera, self._rank]
        return queries.index_put((self._sample, self._query), rows.to(queries.dtype))


def _lengths(seen: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Longest list and number of entries of every mask, in one transfer."""
    counts = [mask.sum(-1).flatten() for mask in seen]
    numbers = torch.stack([number for count in counts for number in (count.max(), count.sum())]).tolist()
    return list(zip(numbers[::2], numbers[1::2], strict=True))
