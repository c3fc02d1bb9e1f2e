"""The cameras of a batch: what every network, renderer and target knows of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rays import Rays


def as_square(matrix: Tensor) -> Tensor:
    """A (..., 3, 3) matrix as (..., 4, 4), so that it can be multiplied with a pose."""
    square = torch.zeros(*matrix.shape[:-2], 4, 4, dtype=matrix.dtype, device=matrix.device)
    square[..., :3, :3] = matrix
    square[..., 3, 3] = 1
    return square


# what cameras that are held upright do not have: rolled by more than a right angle less 17 degrees
_ROLLED = -0.3
INVERTED = (
    'is inverted: cameras would lie on their sides, while their inverses are all upright; it maps the reference frame (z up) '
    'to the camera (x right, y down, z forward)'
)


def looks_inverted(ref2cam: Tensor | np.ndarray) -> Any:
    """Whether the matrices (..., 4, 4) of a rig are upright the other way round, all of them, and not all as they are."""
    # the component along the reference frame's z of the axis that points down in the image; within 25 degrees of straight down
    down, down_of_inverse = ref2cam[..., 1, 2], ref2cam[..., 2, 1]
    return (down_of_inverse < -0.9).all() & (down > _ROLLED).any()


@dataclass(frozen=True, eq=False)
class Cameras:
    """Pinhole cameras of B samples; views of all frames and sensors lie on one flat axis, V = frames x sensors.

    They are built and checked once, where data enters (``PackOccInputs`` and ``OccDataPreprocessor`` in a training, the public
    methods of ``GaussRender`` elsewhere); everything behind trusts them. ``sizes`` and ``frame`` always stay on the CPU, so
    that reading them never waits for a GPU.

    Attributes:
        ref2cam: (B, V, 4, 4), reference frame of the grid *at the key frame* -> camera (x right, y down, z forward), metres,
            acting on columns. For views of other frames the motion of the vehicle is part of it. May need a gradient.
        K: (B, V, 3, 3), intrinsics of the original images, pixels, pixel centres at +0.5.
        sizes: (B, V, 2) int64, width and height of the original images, pixels; they may differ from view to view.
        frame: (V,) int64, offset of the view's frame from the key frame, which is 0; by default all are 0.
        warp: (B, V, 3, 3), pixels of the original image -> pixels of the network's image (resizing, cropping, flipping); None:
            the network sees the original images.
        network_projection: (B, V, 4, 4), what :attr:`ref2img` returns, where that is not the product of the other matrices
            (the published Occ3D numbers sample images without the ego motion between LiDAR and camera), or where its digits
            were computed in float64 before; None: the product.
    """

    ref2cam: Tensor
    K: Tensor
    sizes: Tensor
    frame: Tensor | None = None
    warp: Tensor | None = None
    network_projection: Tensor | None = None

    def __post_init__(self) -> None:
        if self.frame is None:
            object.__setattr__(self, 'frame', torch.zeros(self.ref2cam.shape[1], dtype=torch.long))

    def checked(self, what: str = 'cameras', skew: bool = False) -> 'Cameras':
        """Checks everything once and returns the cameras themselves.

        Args:
            what: Name in the messages, for example that of a frame.
            skew: Let K have skew, which networks can look through and renderers cannot.

        Raises:
            ValueError: If shapes disagree, numbers are not finite, a focal length is not positive, K has skew, or an image has
                no pixels.
        """
        batch, views = self.ref2cam.shape[:2] if self.ref2cam.dim() == 4 else (0, 0)
        if self.ref2cam.shape[2:] != (4, 4) or views < 1:
            raise ValueError(f'{what}: ref2cam must be (B, N, 4, 4) with N >= 1, got {tuple(self.ref2cam.shape)}')
        expected = {
            'K': (batch, views, 3, 3),
            'sizes': (batch, views, 2),
            'frame': (views,),
            'warp': (batch, views, 3, 3),
            'network_projection': (batch, views, 4, 4),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(
                    f'{what}: {name} must be {_SHAPES[name]} with the B and N of ref2cam, {shape}, got {tuple(value.shape)}'
                )
        if not (self.ref2cam.is_floating_point() and self.K.is_floating_point()):
            raise ValueError(f'{what}: ref2cam and K must be floating point, got {self.ref2cam.dtype} and {self.K.dtype}')
        if self.sizes.is_floating_point() or any(n < 1 for sample in self.sizes.tolist() for size in sample for n in size):
            raise ValueError(f'{what}: width and height must be positive numbers of pixels, got {self.sizes.tolist()}')
        with torch.no_grad():
            # all questions in one tensor: a GPU is waited for once
            K = self.K.detach()
            rigid = self.ref2cam.detach()[..., 3, :]
            answers = torch.stack(
                [
                    torch.isfinite(self.ref2cam).all() & torch.isfinite(K).all(),
                    (K[..., (0, 1), (0, 1)] > 0).all(),
                    # the renderers know fx, fy, cx, cy only: anything else in K would be dropped without a word
                    (K[..., (1, 2, 2), (0, 0, 1)] == 0).all() & (K[..., 2, 2] == 1).all(),
                    (K[..., 0, 1] == 0).all() | skew,
                    (rigid[..., :3] == 0).all() & (rigid[..., 3] == 1).all(),
                    ~looks_inverted(self.ref2cam.detach()),
                ]
            ).tolist()
        sentences = (
            'ref2cam and K must be finite; check the calibration of the samples',
            'K must have positive focal lengths; check the calibration of the samples',
            'K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], acting on columns; its last row is scaled, or it is transposed',
            'K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]: skew cannot be rendered',
            'ref2cam must have the last row (0, 0, 0, 1): it acts on columns; is it transposed?',
            f'ref2cam {INVERTED}',
        )
        for fine, sentence in zip(answers, sentences, strict=True):
            if not fine:
                raise ValueError(f'{what}: {sentence}')
        return self

    @property
    def batch_size(self) -> int:
        """B."""
        return self.ref2cam.shape[0]

    @property
    def num_cameras(self) -> int:
        """V."""
        return self.ref2cam.shape[1]

    @property
    def one_size(self) -> tuple[int, int] | None:
        """(width, height) of the original images if all are alike, else None."""
        sizes = {tuple(size) for sample in self.sizes.tolist() for size in sample}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def width(self) -> int:
        """Width of all images, pixels.

        Raises:
            ValueError: If the images have different sizes.
        """
        return self._size()[0]

    @property
    def height(self) -> int:
        """Height of all images, pixels; see :attr:`width`."""
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        size = self.one_size
        if size is None:
            raise ValueError(f'the images have different sizes (width, height): {self.sizes.tolist()}; read sizes instead')
        return size

    @property
    def ref2img(self) -> Tensor:
        """(B, V, 4, 4), reference frame (metres) -> (u*d, v*d, d, 1) with u, v in pixels of the network's image."""
        if self.network_projection is not None:
            return self.network_projection
        # float64: no reduced-precision product of a GPU may move a pixel
        matrix = as_square(self.network_K.double()) @ self.ref2cam.double()
        return matrix.to(self.ref2cam.dtype)

    @property
    def network_K(self) -> Tensor:
        """(B, V, 3, 3), intrinsics of the network's image, pixels; with a flip or a turn it is no upper triangle."""
        return self.K if self.warp is None else (self.warp.double() @ self.K.double()).to(self.K.dtype)

    def to(self, *args: Any, **kwargs: Any) -> 'Cameras':
        """The same cameras with ``Tensor.to(*args, **kwargs)`` applied to the matrices."""
        return self._replace(
            **{name: None if (value := getattr(self, name)) is None else value.to(*args, **kwargs) for name in _MATRICES}
        )

    def select(self, indices: Tensor | Sequence[int]) -> 'Cameras':
        """The views ``indices`` of every sample, in that order, repetitions allowed.

        Raises:
            ValueError: If an index is outside 0..V-1.
        """
        numbers = indices.tolist() if isinstance(indices, Tensor) else [int(index) for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= self.num_cameras:
            raise ValueError(
                f'camera indices must lie in 0..{self.num_cameras - 1} (the batch has {self.num_cameras} cameras), '
                f'got {numbers}; check cameras.indices'
            )
        indices = torch.tensor(numbers)
        there = indices.to(self.ref2cam.device)
        matrices = {name: None if (value := getattr(self, name)) is None else value[:, there] for name in _MATRICES}
        return self._replace(**matrices, sizes=self.sizes[:, indices], frame=self.frame[indices])

    def samples(self, indices: Sequence[int]) -> 'Cameras':
        """All views of the samples ``indices`` of the batch."""
        indices = list(indices)
        matrices = {name: None if (value := getattr(self, name)) is None else value[indices] for name in _MATRICES}
        return self._replace(**matrices, sizes=self.sizes[indices])

    def at(self, frame: int) -> 'Cameras':
        """The views of one frame, 0 for the key frame.

        Raises:
            ValueError: If there is no such frame.
        """
        indices = self.frame_indices(frame)
        return self if len(indices) == self.num_cameras else self.select(indices)

    def frame_indices(self, frame: int) -> Tensor:
        """Positions on the view axis of the views of one frame, (n,) int64 on the CPU.

        Raises:
            ValueError: If there is no such frame.
        """
        indices = torch.tensor([view for view, offset in enumerate(self.frame.tolist()) if offset == frame], dtype=torch.long)
        if len(indices) == 0:
            raise ValueError(
                f'there are no views of frame {frame}, only of {sorted(set(self.frame.tolist()))}; '
                'list it in frames of the dataset'
            )
        return indices

    def by_size(self) -> Iterator[tuple[list[int], list[int], 'Cameras']]:
        """Groups of views whose images have one size.

        Yields:
            Samples, views and their cameras (samples, views, ...). One group with everything where all sizes are alike, else
            one group for each size if it is a matter of the view alone, else one group for each view of each sample.
        """
        everything = list(range(self.batch_size)), list(range(self.num_cameras))
        if self.one_size is not None:
            yield *everything, self
        elif all(sizes == self.sizes[0].tolist() for sizes in self.sizes.tolist()):
            groups: dict[tuple[int, int], list[int]] = {}
            for view, size in enumerate(self.sizes[0].tolist()):
                groups.setdefault(tuple(size), []).append(view)
            for views in groups.values():
                yield everything[0], views, self.select(views)
        else:
            for sample in everything[0]:
                for view in everything[1]:
                    yield [sample], [view], self.samples([sample]).select([view])

    def reduced(self, reduction: float) -> 'Cameras':
        """Images smaller by ``reduction``: size ``floor(size / reduction)``, first two rows of K divided by it."""
        if reduction == 1:
            return self
        K = self.K.clone()
        K[..., :2, :] /= reduction
        sizes = (self.sizes.double() // reduction).long().clamp(min=1)
        return Cameras(self.ref2cam, K, sizes, self.frame)

    def rays(self, view: Tensor, uv: Tensor) -> Rays:
        """Rays through pixels of the original images.

        Args:
            view: (B, R) int64, position on the view axis.
            uv: (B, R, 2), pixels, x before y; the centre of the top left pixel is (0.5, 0.5).

        Returns:
            Rays in the reference frame, dtype of ``ref2cam``; gradients reach ``ref2cam``.
        """
        batch = torch.arange(self.batch_size, device=view.device)[:, None]
        ref2cam, K = self.ref2cam[batch, view].double(), self.K[batch, view].double()
        uv = uv.double()
        x = (uv[..., 0] - K[..., 0, 2]) / K[..., 0, 0]
        y = (uv[..., 1] - K[..., 1, 2]) / K[..., 1, 1]
        local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        length = local.norm(dim=-1)
        # the inverse of a rigid motion: transposed rotation
        rotation, translation = ref2cam[..., :3, :3], ref2cam[..., :3, 3]
        origin = -(rotation * translation[..., None]).sum(-2)
        direction = (rotation * (local / length[..., None])[..., None]).sum(-2)
        dtype = self.ref2cam.dtype
        return Rays(
            origin=origin.to(dtype),
            direction=direction.to(dtype),
            depth_per_range=(1 / length).to(dtype),
            valid=torch.ones_like(view, dtype=torch.bool),
            view=view,
            uv=uv.to(dtype),
        )

    def _replace(self, **changes: Any) -> 'Cameras':
        # not dataclasses.replace of a subclass, whose constructor may take other arguments
        current = {name: getattr(self, name) for name in (*_MATRICES, 'sizes', 'frame')}
        return Cameras(**(current | changes))

    def with_poses(self, ref2cam: Tensor) -> 'Cameras':
        """The same cameras at other places, for example those that a pose network predicts."""
        return self._replace(ref2cam=ref2cam, network_projection=None)

    @classmethod
    def stack(cls, cameras: Sequence['Cameras']) -> 'Cameras':
        """Joins cameras of several samples along B.

        Raises:
            ValueError: If the numbers of views or their frames differ, or only some have a ``warp``.
        """
        first = cameras[0]
        if any(item.num_cameras != first.num_cameras or not torch.equal(item.frame, first.frame) for item in cameras):
            raise ValueError(
                'all samples of a batch need the same cameras and frames, got (number, frames) '
                f'{[(item.num_cameras, item.frame.tolist()) for item in cameras]}; use batch_size=1 or a fixed '
                'dataset.cam_names'
            )
        joined: dict[str, Tensor | None] = {}
        for name in (*_MATRICES, 'sizes'):
            values = [getattr(item, name) for item in cameras]
            missing = sum(value is None for value in values)
            if missing not in (0, len(values)):
                raise ValueError(
                    f'{missing} of the {len(values)} samples of a batch have no {name}; their pipelines must agree'
                )
            joined[name] = None if missing else torch.cat(values)
        return Cameras(**joined, frame=first.frame)


_SHAPES = dict(K='(B, N, 3, 3)', sizes='(B, N, 2)', frame='(N,)', warp='(B, N, 3, 3)', network_projection='(B, N, 4, 4)')
_MATRICES = ('ref2cam', 'K', 'warp', 'network_projection')


def sample_cameras(sample: Mapping[str, Any]) -> Cameras:
    """The real cameras of a data sample: uncropped original images with their own intrinsics, on the CPU, float32, B = 1.

    Raises:
        ValueError: If ``ref2cam``, ``cam2img`` or ``ori_img_wh`` is missing, or they are no cameras.
    """
    name = f'sample {sample.get("token", "<without token>")}'
    for key in ('ref2cam', 'cam2img', 'ori_img_wh'):
        if sample.get(key) is None:
            raise ValueError(f'{name} has no {key!r}, which rendering needs; PackOccInputs writes it')
    ref2cam, K = (torch.from_numpy(np.asarray(sample[key], dtype=np.float32))[None] for key in ('ref2cam', 'cam2img'))
    sizes = torch.from_numpy(np.rint(np.asarray(sample['ori_img_wh'])).astype(np.int64))[None]
    return Cameras(ref2cam, K, sizes).checked(name)
