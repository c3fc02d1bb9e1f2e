"""One batch on its way into a network: images, cameras, labels and whatever else the data set has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from .cameras import Cameras
from .rays import Rays
from .teacher_targets import TeacherTargets


@dataclass(frozen=True)
class ImageList:
    """One tensor per image of one sample.

    No list on purpose: collate functions sort lists of samples by position, and images of different samples would mix.
    """

    images: tuple[Tensor, ...]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


@dataclass
class OccBatch:
    """What the data preprocessor makes of B samples, on the device of the model; B x V views, see :class:`Cameras`.

    Attributes:
        cameras: Of all views.
        images: (B, V, 3, H, W), normalised, padded at the right and at the bottom to one size.
        image_sizes: (B, V, 2), width and height of the images before padding, pixels.
        view_missing: (B, V) bool, views of neighbouring frames that do not exist and for which the key frame's stand in; None:
            all exist.
        scene: (B, 3, 3), augmentation of the scene: takes points of the reference frame as it was recorded to the one that
            cameras, labels, masks and points refer to (mirrored, for example); None: there is none.
        originals: B lists of V images (3, h, w) uint8 RGB as they are on disk or, whole, smaller, for targets that compare
            colours, or None.
        image_masks: B lists of V masks (h, w) bool of the key frame's images, False on the own car, or None.
        pseudo_labels: B lists of V class maps (h, w) int16 of the key frame's images, -1 where there is no class, or None.
        labels: (B, X, Y, Z) int64 class ids and ``grid.ignore_index``, checked, or None.
        masks: Voxels that a sensor sees by its name (``'camera'``, ``'lidar'``), each (B, X, Y, Z) bool.
        depths: (B, V, H, W), depth maps at the network images, metres along the optical axis, 0 where unknown, or None.
        voxel_pixels: (B, V, P, 2) int64, column and row of voxel centres in the network images, see ``LoadVoxelProjections``,
            or None.
        voxel_visible: (B, V, P) bool, which of them the camera sees, or None.
        frustum_index: (B, X, Y, Z) int16, box of the first image that a voxel projects into, -1 for none, or None.
        frustums: Boxes per side of that image, or None.
        points: B LiDAR clouds (M, 3 or more), metres in the reference frame, or None.
        rays: Measured rays, or None.
        teacher: What a teacher says about unlabelled samples, or None.
        tokens: Names of the samples, for messages.
    """

    cameras: Cameras
    images: Tensor | None = None
    image_sizes: Tensor | None = None
    view_missing: Tensor | None = None
    scene: Tensor | None = None
    originals: list[list[Tensor]] | None = None
    image_masks: list[list[Tensor]] | None = None
    pseudo_labels: list[list[Tensor]] | None = None
    labels: Tensor | None = None
    masks: dict[str, Tensor] = field(default_factory=dict)
    depths: Tensor | None = None
    voxel_pixels: Tensor | None = None
    voxel_visible: Tensor | None = None
    frustum_index: Tensor | None = None
    frustums: int | None = None
    points: list[Tensor] | None = None
    rays: Rays | None = None
    teacher: TeacherTargets | None = None
    tokens: list[str] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.cameras.batch_size

    @property
    def input_wh(self) -> tuple[int, int]:
        """(W, H) of the padded network images, pixels."""
        return self.images.shape[-1], self.images.shape[-2]

    def at(self, frame: int) -> 'OccBatch':
        """The batch with the views of one frame only, 0 for the key frame; what is no view stays."""
        indices = self.cameras.frame_indices(frame)
        if len(indices) == self.cameras.num_cameras:
            return self
        there = indices.to(self.cameras.ref2cam.device)
        views = ('images', 'image_sizes', 'view_missing', 'depths', 'voxel_pixels', 'voxel_visible')
        taken = {name: None if (value := getattr(self, name)) is None else value[:, there] for name in views}
        originals = self.originals and [[images[i] for i in indices.tolist()] for images in self.originals]
        return replace(self, **taken, originals=originals, cameras=self.cameras.select(indices))

    def samples(self, indices: Sequence[int]) -> 'OccBatch':
        """The samples ``indices`` of the batch."""
        indices = list(indices)
        changed: dict = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = value[indices]
            elif isinstance(value, list) and value:
                changed[item.name] = [value[i] for i in indices]
            elif isinstance(value, dict):
                changed[item.name] = {name: part[indices] for name, part in value.items()}
            elif isinstance(value, (Cameras, Rays, TeacherTargets)):
                changed[item.name] = value.samples(indices)
        return replace(self, **changed)

    def require_labels(self, reader: str) -> Tensor:
        """``labels``.

        Args:
            reader: Who needs them, for the message.

        Raises:
            ValueError: If a sample of the batch has none.
        """
        if self.labels is None:
            raise ValueError(
                f"{reader} needs labels, but a sample of the batch {self.tokens} has no 'gt_occ'; put LoadOccLabels into the "
                'pipeline before PackOccInputs'
            )
        return self.labels

    def require_mask(self, which: str, reader: str) -> Tensor:
        """(B, X, Y, Z) bool, voxels that the named sensors see: ``'camera'``, ``'lidar'`` or ``'both'``.

        Raises:
            ValueError: If a sample has no such mask.
        """
        names = ('camera', 'lidar') if which == 'both' else (which,)
        for name in names:
            if name not in self.masks:
                raise ValueError(
                    f"{reader} needs the mask 'mask_{name}', which a sample of the batch {self.tokens} does not have; masks "
                    'exist in Occ3D labels only (loss_occ.mask)'
                )
        mask = self.masks[names[0]]
        return mask & self.masks[names[1]] if len(names) > 1 else mask
