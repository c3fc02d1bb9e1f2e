"""Virtual cameras of a training step: strategies that move the real ones, and the bird's-eye view."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.occ.structures import Cameras, VoxelGrid


def bird_eye_camera(grid: VoxelGrid | Mapping[str, Any], size: int = 400, height: float | None = None) -> Cameras:
    """A pinhole camera above the origin that looks straight down on the grid.

    Image x is +x of the grid, image up is +y, and the plane z = 0 of the grid fills the image exactly. The view is a
    perspective one with a long focal length; the depth of a point is ``height - z``.

    Args:
        grid: Voxel grid or the dict that describes it.
        size: Image width in pixels; the height follows from the y extent of the grid.
        height: Height of the camera above z = 0 in metres; None is the x extent of the grid, as in the original.

    Returns:
        Cameras: B = N = 1.

    Raises:
        ValueError: If the camera would not be above the grid.
    """
    grid = VoxelGrid.build(grid)
    if int(size) != size or size < 1:
        raise ValueError(f'bev.size must be a positive number of pixels, got {size}')
    extent_x, extent_y, _ = grid.extent
    height = extent_x if height is None else float(height)
    if not height > grid.upper[2]:
        raise ValueError(
            f"the bird's-eye camera at {height} m is not above the grid, which ends at {grid.upper[2]} m; set bev.height"
        )
    pixels_per_metre = size / extent_x
    focal = height * pixels_per_metre
    image_height = max(round(extent_y * pixels_per_metre), 1)
    # + 0.0 turns a negative zero into a zero
    cx, cy = -grid.lower[0] * pixels_per_metre + 0.0, grid.upper[1] * pixels_per_metre
    ref2cam = torch.tensor([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, height], [0, 0, 0, 1]], dtype=torch.float32)
    K = torch.tensor([[focal, 0, cx], [0, focal, cy], [0, 0, 1]], dtype=torch.float32)
    return Cameras(ref2cam[None, None], K[None, None], torch.tensor([[[int(size), image_height]]]))


def tilt_and_shift(
    ref2cam: Tensor,
    phi: Tensor | float = 0.0,
    theta: Tensor | float = 0.0,
    tx: Tensor | float = 0.0,
    ty: Tensor | float = 0.0,
    tz: Tensor | float = 0.0,
) -> Tensor:
    """Rotates cameras about their own axes, then moves the world in the new camera frame.

    ``E' = Rx(phi) Ry(theta) E``, then ``(tx, ty, tz)`` is added to the translation of E'. A positive ``phi`` tilts the camera
    down, a positive ``ty`` raises the camera, a positive ``tz`` moves it backwards.

    Args:
        ref2cam: (..., n, 4, 4).
        phi: Pitch in degrees, a number or (n,).
        theta: Yaw in degrees, a number or (n,).
        tx: Shift along camera x in metres, a number or (n,).
        ty: Shift along camera y in metres, a number or (n,).
        tz: Shift along camera z in metres, a number or (n,).

    Returns:
        (..., n, 4, 4), dtype of ``ref2cam``.
    """
    # float64: no reduced-precision matrix product of a GPU may move a camera
    exact = ref2cam.double()

    def column(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=ref2cam.device).expand(ref2cam.shape[-3])

    pitch, yaw = torch.deg2rad(column(phi)), torch.deg2rad(column(theta))
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    rotate_x = torch.stack(
        [one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos()], dim=-1
    ).unflatten(-1, (3, 3))
    rotate_y = torch.stack([yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos()], dim=-1).unflatten(
        -1, (3, 3)
    )
    moved = exact.clone()
    moved[..., :3, :] = rotate_x @ rotate_y @ exact[..., :3, :]
    moved[..., :3, 3] += torch.stack([column(tx), column(ty), column(tz)], dim=-1)
    return moved.to(ref2cam.dtype)


def _uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator | None) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


class CameraStrategy(ABC):
    """Makes the virtual cameras of a training step from real ones.

    All randomness is in :meth:`draw`; :meth:`apply` is a pure function, so that logged draws give the same cameras again.
    """

    @abstractmethod
    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draws every random number that ``num_cameras`` cameras need; one draw serves a whole batch.

        Returns:
            Tensors by name, on the CPU; empty if nothing is random.
        """

    @abstractmethod
    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Moves cameras.

        Args:
            ref2cam: (..., n, 4, 4), reference frame -> camera.
            K: (..., n, 3, 3), pixels.
            draws: What :meth:`draw` returned for n cameras.

        Returns:
            New ``ref2cam`` and ``K`` with the same leading dimensions; the number of cameras may differ from n.
        """

    def sizes(self, sizes: Tensor) -> Tensor:
        """Image sizes of the cameras that :meth:`apply` makes.

        Args:
            sizes: (B, n, 2) int64, width and height of the n cameras, pixels.

        Returns:
            (B, m, 2) int64 for the m new cameras; here those of the n cameras.
        """
        return sizes

    def place(self, cameras: Cameras, draws: Mapping[str, Tensor]) -> Cameras:
        """The virtual cameras that ``draws`` make of n real ones; pure."""
        ref2cam, K = self.apply(cameras.ref2cam, cameras.K, draws)
        return Cameras(ref2cam, K, self.sizes(cameras.sizes))


class SensorCameras(CameraStrategy):
    """The real cameras, unmoved."""

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {}

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return ref2cam, K


class ElevatedCameras(CameraStrategy):
    """Raised, tilted down, with a small random yaw.

    Args:
        pitch: Tilt downwards, degrees.
        max_yaw: Yaw is drawn from U(-max_yaw, max_yaw), degrees, per camera.
        lift: Height gained, metres.
    """

    def __init__(self, pitch: float = 20.0, max_yaw: float = 5.0, lift: float = 8.0) -> None:
        self.pitch, self.max_yaw, self.lift = pitch, max_yaw, lift

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``theta``: yaw, (n,), degrees."""
        return {'theta': _uniform((num_cameras,), -self.max_yaw, self.max_yaw, generator)}

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return tilt_and_shift(ref2cam, phi=self.pitch, theta=draws['theta'], ty=self.lift), K


class RandomCameras(CameraStrategy):
    """Random pitch, yaw and distance; the height follows the pitch.

    Args:
        max_pitch: Tilt downwards is drawn from U(0, max_pitch), degrees, per camera.
        max_yaw: Yaw is drawn from U(-max_yaw, max_yaw), degrees, per camera.
        max_shift: Shift along the viewing axis is drawn from U(-max_shift, max_shift), metres, per camera.
        lift_per_degree: Metres of height per degree of tilt.
    """

    def __init__(
        self, max_pitch: float = 20.0, max_yaw: float = 10.0, max_shift: float = 10.0, lift_per_degree: float = 0.4
    ) -> None:
        self.max_pitch, self.max_yaw, self.max_shift, self.lift_per_degree = max_pitch, max_yaw, max_shift, lift_per_degree

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``phi`` (pitch) and ``theta`` (yaw) in degrees, ``tz`` (backwards) in metres, each (n,); drawn camera by camera."""
        unit = torch.rand(num_cameras, 3, generator=generator)
        return {
            'phi': unit[:, 0] * self.max_pitch,
            'theta': (2 * unit[:, 1] - 1) * self.max_yaw,
            'tz': (2 * unit[:, 2] - 1) * self.max_shift,
        }

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        phi = draws['phi']
        return tilt_and_shift(ref2cam, phi=phi, theta=draws['theta'], ty=self.lift_per_degree * phi, tz=draws['tz']), K


class StereoCameras(CameraStrategy):
    """The real cameras, followed by a copy of each that is shifted along its y and z axes: 2n cameras.

    Args:
        max_shift: Both shifts are drawn from U(-max_shift, max_shift), metres, per camera.
    """

    def __init__(self, max_shift: float = 1.0) -> None:
        self.max_shift = max_shift

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``ty`` and ``tz``: (n,), metres; drawn camera by camera."""
        shift = _uniform((num_cameras, 2), -self.max_shift, self.max_shift, generator)
        return {'ty': shift[:, 0], 'tz': shift[:, 1]}

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        moved = tilt_and_shift(ref2cam, ty=draws['ty'], tz=draws['tz'])
        return torch.cat([ref2cam, moved], dim=-3), torch.cat([K, K], dim=-3)

    def sizes(self, sizes: Tensor) -> Tensor:
        return torch.cat([sizes, sizes], dim=1)


class TrajectoryCameras(CameraStrategy):
    """Raised, and moved along the drive on grids that reach further ahead than behind.

    With f ~ U(0, 1) for all cameras, the translation of ``ref2cam`` grows by
    ``(f (y_max - |y_min|) / 2, lift, -0.7 f (x_max - |x_min|))`` in the camera frame. On a grid that is symmetric about the
    car only the lift remains; on 0..51.2 m the camera moves forward by up to 35.84 m.

    Args:
        grid: Voxel grid whose range bounds the motion; filled in by ``GaussRender``.
        lift: Height gained, metres.
    """

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], lift: float = 2.0) -> None:
        grid = VoxelGrid.build(grid)
        (x_min, y_min, _), (x_max, y_max, _) = grid.lower, grid.upper
        self.reach_x, self.reach_y, self.lift = x_max - abs(x_min), y_max - abs(y_min), lift

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``f``: fraction of the way, one number in [0, 1) without dimensions."""
        return {'f': torch.rand((), generator=generator)}

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        f = draws['f'].double()
        return tilt_and_shift(ref2cam, tx=f * self.reach_y / 2, ty=self.lift, tz=-0.7 * f * self.reach_x), K


class ElevatedAroundCameras(CameraStrategy):
    """Raised, and shifted at random sideways and along the viewing axis ("elevated + around").

    The paper names this best strategy without giving its ranges; these are ours.

    Args:
        lift: Height gained, metres.
        max_shift: Both shifts are drawn from U(-max_shift, max_shift), metres, per camera.
    """

    def __init__(self, lift: float = 2.0, max_shift: float = 5.0) -> None:
        self.lift, self.max_shift = lift, max_shift

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """``tx`` and ``tz``: (n,), metres; drawn camera by camera."""
        shift = _uniform((num_cameras, 2), -self.max_shift, self.max_shift, generator)
        return {'tx': shift[:, 0], 'tz': shift[:, 1]}

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return tilt_and_shift(ref2cam, tx=draws['tx'], ty=self.lift, tz=draws['tz']), K


class ListCameras(CameraStrategy):
    """A fixed list of cameras, whatever the real ones are.

    Args:
        ref2cam: (M, 4, 4) nested lists or array, reference frame -> camera, metres.
        K: (M, 3, 3) or one (3, 3) for all, pixels.
        width: Image width in pixels; None takes that of the real cameras.
        height: Image height in pixels; None takes that of the real cameras.

    Raises:
        ValueError: If the matrices are no cameras or only one of width and height is given.
    """

    def __init__(self, ref2cam: Any, K: Any, width: int | None = None, height: int | None = None) -> None:
        self.ref2cam = torch.as_tensor(np.asarray(ref2cam), dtype=torch.float32)
        self.K = torch.as_tensor(np.asarray(K), dtype=torch.float32)
        if self.K.dim() == 2 and self.ref2cam.dim() == 3:
            self.K = self.K.expand(len(self.ref2cam), 3, 3)
        if (width is None) != (height is None):
            raise ValueError(f'ListCameras needs both width and height or none of them, got {width} and {height}')
        self.image_size = None if width is None else (width, height)
        sizes = torch.tensor(self.image_size or (1, 1)).expand(1, len(self.ref2cam), 2)
        Cameras(self.ref2cam[None], self.K[None], sizes).checked('ListCameras')

    def draw(self, num_cameras: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {}

    def apply(self, ref2cam: Tensor, K: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        lead = ref2cam.shape[:-3]
        return self.ref2cam.to(ref2cam).expand(*lead, -1, 4, 4), self.K.to(K).expand(*lead, -1, 3, 3)

    def sizes(self, sizes: Tensor) -> Tensor:
        if self.image_size is None and bool((sizes != sizes[0, 0]).any()):
            raise ValueError(
                f'the real images have different sizes {sizes.tolist()}, so ListCameras needs its own width and height'
            )
        size = sizes[0, 0] if self.image_size is None else torch.tensor(self.image_size)
        return size.expand(len(sizes), len(self.ref2cam), 2)


STRATEGIES = {
    cls.__name__: cls
    for cls in (
        SensorCameras,
        ElevatedCameras,
        RandomCameras,
        StereoCameras,
        TrajectoryCameras,
        ElevatedAroundCameras,
        ListCameras,
    )
}


def build_camera_strategy(
    cfg: CameraStrategy | Mapping[str, Any], grid: VoxelGrid | Mapping[str, Any] | None = None
) -> CameraStrategy:
    """Builds a camera strategy.

    Args:
        cfg: ``dict(type=name or class, **arguments)`` or a strategy, which is returned as it is.
        grid: Voxel grid for the strategies that need one and whose ``cfg`` has none.

    Raises:
        ValueError: If the type is unknown (the message lists the known names) or an argument is missing or unknown.
    """
    if isinstance(cfg, CameraStrategy):
        return cfg
    arguments = dict(cfg)
    kind = arguments.pop('type', None)
    cls = kind if inspect.isclass(kind) and issubclass(kind, CameraStrategy) else STRATEGIES.get(kind)
    if cls is None:
        raise ValueError(f'unknown camera strategy {kind!r}; cameras.type must be one of {sorted(STRATEGIES)}')
    parameters = inspect.signature(cls).parameters
    if 'grid' in parameters and arguments.get('grid') is None:
        if grid is None:
            raise ValueError(f'{cls.__name__} needs the voxel grid: pass grid=... to build_camera_strategy or in its dict')
        arguments['grid'] = grid
    unknown = sorted(set(arguments) - set(parameters))
    missing = sorted(n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in arguments)
    if unknown or missing:
        raise ValueError(
            f'{cls.__name__}: unknown arguments {unknown}, missing arguments {missing}; it takes {sorted(parameters)}'
        )
    return cls(**arguments)
