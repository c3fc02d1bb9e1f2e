"""Lists of the queries that each camera sees."""

from torch import Tensor


class CameraRebatch:
    """Packs the queries that a camera sees into short rows, so that nothing is computed for the others.

    Every (sample, camera) pair has its own list of queries in rising order. The lists are padded with zeros to the longest one;
    padding is never read back. Only memory and time depend on this, the result does not.

    Args:
        seen: (B, N, Q) bool, True where camera n of sample b sees query q.

    Attributes:
        length: Length L of the longest list, at least 1.
    """

    def __init__(self, seen: Tensor) -> None:
        self.batch_size, self.num_cams, self.num_queries = seen.shape
        self.length = max(int(seen.sum(-1).max()), 1)
        self._sample, self._camera, self._query = seen.nonzero(as_tuple=True)
        self._rank = (seen.cumsum(-1) - 1)[seen]
        self._num_seeing = seen.sum(1).clamp(min=1).unsqueeze(-1)

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
