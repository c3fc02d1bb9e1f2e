"""Targets that come with the images: neighbouring frames, and class maps that another network has painted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from projects.occ.structures import Cameras, OccBatch, OccField, Rays, VoxelGrid

from ..frame_images import frame_images, frame_motions, stacked_maps
from ..photometric import Neighbour
from ..rendered import Rendered
from .target import Target

IGNORE = -1


class ImageComparison(NamedTuple):
    """What a depth map is judged by.

    Attributes:
        image: (B, V, 3, H, W), 0..1, of the key frame.
        K: (B, V, 3, 3), at this size, pixels.
        neighbours: Other frames; their tensors are (B, V, ...).
        mask: (B, V, 1, H, W) bool, False on the own car; None: nowhere.
    """

    image: Tensor
    K: Tensor
    neighbours: list[Neighbour]
    mask: Tensor | None


class ImageTarget(nn.Module, Target):
    """Neighbouring frames for the rendered depth, class maps for the rendered features, or both.

    Args:
        grid: Not needed; every target is given it.
        frames: Offsets of the neighbouring frames, which the data set must load (``dataset.frames``); empty for class
            maps alone.
        size: (height, width) at which images are compared, pixels; rendered depth is enlarged to it.
        poses: Module that predicts the motion between the frames, see :func:`frame_motions`; None: the poses of the data set.
        labels: Whether there are class maps (``LoadPseudoLabels``).
        masks: Whether there are own-car masks (``LoadSelfOcclusionMasks``), where nothing is compared.

    Raises:
        ValueError: If nothing is left to compare with, or the key frame is among ``frames``.
    """

    value_kinds = {'depth': 'comparison', 'features': 'class ids'}
    takes_views = (Cameras,)
    needs_real_cameras = True

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any] | None = None,
        frames: Sequence[int] = (-1, 1),
        size: Sequence[int] = (384, 640),
        poses: nn.Module | None = None,
        labels: bool = True,
        masks: bool = False,
    ) -> None:
        super().__init__()
        self.frames = tuple(int(frame) for frame in frames)
        if 0 in self.frames or not (self.frames or labels):
            raise ValueError(
                f'target.frames must be other frames than the key frame 0, or target.labels be set, got '
                f'{self.frames} and {labels}'
            )
        self.size = tuple(int(n) for n in size)
        self.poses = poses
        self.labels, self.masks = labels, masks
        self.quantities = (('depth',) if self.frames else ()) + (('features',) if labels else ())
        self.reads = tuple(
            name for name, needed in (('originals', self.frames), ('pseudo_labels', labels), ('image_masks', masks)) if needed
        )

    def __call__(
        self, batch: OccBatch, views: Cameras | Rays, renderer: Callable[[OccField, Cameras | Rays], Rendered]
    ) -> dict[str, tuple[Any, Tensor | None]]:
        """Values of the key frame's cameras; renders nothing.

        Args:
            batch: With the images of all frames and whatever else is compared.
            views: Cameras of the rendered prediction, all of the key frame.
            renderer: Not needed.

        Returns:
            ``depth``: an :class:`ImageComparison`; ``features``: class ids (B, V, h, w) int64 at the rendered size, -1 where
            there is none.
        """
        values: dict[str, tuple[Any, Tensor | None]] = {}
        if self.frames:
            image, K = frame_images(batch, 0, self.size)
            motions = frame_motions(batch, self.frames, self.poses, self.size)
            neighbours = [
                Neighbour(*frame_images(batch, frame, self.size), motion) for frame, motion in zip(self.frames, motions)
            ]
            mask = None
            if self.masks:
                mask = stacked_maps(batch.image_masks, self.size, K.device).unsqueeze(2) > 0
            values['depth'] = ImageComparison(image, K, neighbours, mask), None
        if self.labels:
            rendered = (views.height, views.width)
            labels = stacked_maps(batch.pseudo_labels, rendered, views.K.device).long()
            if self.masks:
                labels = labels.masked_fill(stacked_maps(batch.image_masks, rendered, views.K.device) == 0, IGNORE)
            values['features'] = labels, labels != IGNORE
        return values
