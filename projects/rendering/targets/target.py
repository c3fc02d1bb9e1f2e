"""What renderings are compared with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor

from projects.occ.structures import Cameras, OccBatch, OccField, Rays

from ..rendered import Rendered

# A target image and a bool mask of the pixels that count, or None for all.
Values = tuple[Tensor, Tensor | None]


class Target(ABC):
    """Gives what the rendering of a prediction should look like.

    Attributes:
        reads: Names of the fields of :class:`OccBatch` that it reads.
        quantities: Names of the quantities of :class:`Rendered` that it has values for.
        value_kinds: What the value of a quantity is, if it is no ``'image'`` shaped like the rendered one: ``'class ids'`` of
            pixels, or a ``'comparison'`` with other images.
        takes_views: The kinds of views that it has values for.
        needs_real_cameras: Whether its values belong to all cameras of the key frame, unmoved and in their order.
    """

    reads: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()
    value_kinds: Mapping[str, str] = {}
    takes_views: tuple[type, ...] = (Cameras, Rays)
    needs_real_cameras: bool = False

    def known(self, batch: OccBatch) -> Tensor | None:
        """(B, X, Y, Z) bool, voxels that prediction and target may show, or None for all."""
        return None

    @abstractmethod
    def __call__(
        self, batch: OccBatch, views: Cameras | Rays, renderer: Callable[[OccField, Cameras | Rays], Rendered]
    ) -> dict[str, Values]:
        """Values of one kind of views.

        Args:
            batch: What the data set has of the samples.
            views: The views of the rendered prediction; all images have one size.
            renderer: The renderer of the prediction with its settings for these views.

        Returns:
            By the name of a quantity, its value and its mask, shaped like the rendered one.
        """
