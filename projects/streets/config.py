"""What to generate: formats, grids, number of scenes and frames, camera settings."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS

# Version that annotation files and tables name.
VERSION = 'synthetic-v1'
# Part of the hash that identifies a data set: raise it whenever the same configuration gives other files.
GENERATOR_VERSION = 2

# Ids inside the generator are those of Occ3D: 0 others, 1..16 semantic classes, 17 free.
CLASS_ID = {name: index for index, name in enumerate(BENCHMARKS['occ3d'].grid.class_names)}
FREE = CLASS_ID['free']

NUSCENES_FORMATS = ('occ3d', 'surroundocc')
# One camera on another vehicle: generated for itself, not together with the others.
KITTI360 = 'sscbench-kitti360'
FORMATS = (*NUSCENES_FORMATS, KITTI360)
# Height of the LiDAR above the ego origin used when one range has to serve both label frames, metres.
FRAME_Z_SHIFT = 1.8
# per preset: voxel size and range per format (where there are none, the benchmark's), image (width, height), rays per
# border pixel, view distance
PRESETS: dict[str, dict[str, Any]] = {
    'tiny': dict(
        voxel_size=0.8,
        occ3d=(-16.0, -16.0, -1.0, 16.0, 16.0, 3.8),
        surroundocc=(-16.0, -16.0, -2.8, 16.0, 16.0, 2.0),
        image_size=(200, 112),
        samples=4,
        view_distance=48.0,
    ),
    'small': dict(
        voxel_size=0.8,
        occ3d=(-25.6, -25.6, -1.0, 25.6, 25.6, 5.4),
        surroundocc=(-25.6, -25.6, -3.0, 25.6, 25.6, 3.4),
        image_size=(400, 224),
        samples=4,
        view_distance=60.0,
    ),
    'full': dict(
        voxel_size=None,
        image_size=(1600, 900),
        samples=3,
        view_distance=80.0,
    ),
}
# the same for the format of SSCBench-KITTI-360
KITTI360_PRESETS: dict[str, dict[str, Any]] = {
    'tiny': {
        'voxel_size': 0.5,
        KITTI360: (0.0, -16.0, -2.0, 32.0, 16.0, 2.0),
        'image_size': (352, 96),
        'samples': 4,
        'view_distance': 48.0,
    },
    'small': {
        'voxel_size': 0.4,
        KITTI360: (0.0, -25.6, -2.0, 51.2, 25.6, 4.4),
        'image_size': (704, 188),
        'samples': 4,
        'view_distance': 60.0,
    },
    'full': {
        'voxel_size': None,
        'image_size': (1408, 376),
        'samples': 3,
        'view_distance': 60.0,
    },
}
# Numbers of KITTI-360 drives and frames: every fifth frame is written, a thousand numbers are kept for each scene.
MAX_KITTI360_SCENES, MAX_KITTI360_FRAMES = 1000, 200
# uint8 voxels of one scene's world; two workers then stay below about 3 GiB
_MAX_WORLD_VOXELS = 600_000_000
# camera images between two key frames, 12 Hz
MAX_CAMERA_SWEEPS = 5
_MAX_SPEED = 12.0  # m/s, of the ego vehicle, for the estimate of the memory


@dataclass(frozen=True)
class CameraSettings:
    """How the cameras and the light behave.

    Args:
        light: ``'day'``, ``'overcast'``, ``'dusk'``, or ``'mixed'`` to draw one of them per scene.
        noise: Standard deviation of the sensor noise at full brightness, in grey levels (of 255); half of it in the dark.
        exposure_jitter: Standard deviation of the relative exposure error, drawn per image.
        vignetting: Relative darkening in the image corners.
        haze_distance: Distance at which haze has taken away 63 % of the contrast, metres.
        shadows: Whether the sun casts shadows (a second ray per pixel).
        samples: Rays per pixel at the borders of surfaces (elsewhere one); the first goes through the pixel centre.
        jpeg_quality: 1..100.
    """

    light: str = 'mixed'
    noise: float = 2.5
    exposure_jitter: float = 0.06
    vignetting: float = 0.12
    haze_distance: float = 250.0
    shadows: bool = True
    samples: int = 1
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if self.light not in ('day', 'overcast', 'dusk', 'mixed'):
            raise ValueError(f"camera.light must be 'day', 'overcast', 'dusk' or 'mixed', got {self.light!r}")
        if self.noise < 0 or self.exposure_jitter < 0 or not 0 <= self.vignetting < 1 or self.haze_distance <= 0:
            raise ValueError(
                'camera settings: noise and exposure_jitter must be >= 0, vignetting in [0, 1), haze_distance > 0 metres; got '
                f'{self.noise}, {self.exposure_jitter}, {self.vignetting}, {self.haze_distance}'
            )
        if not 1 <= self.samples <= 16 or not 1 <= self.jpeg_quality <= 100:
            raise ValueError(
                f'camera.samples must lie in 1..16 and camera.jpeg_quality in 1..100, got {self.samples}, {self.jpeg_quality}'
            )


@dataclass(frozen=True)
class SyntheticConfig:
    """Everything that decides the content of a synthetic data set.

    Args:
        grids: Label format (``'occ3d'``, ``'surroundocc'``, or ``'sscbench-kitti360'`` alone) -> grid of its labels.
        scenes_train: Number of training scenes.
        scenes_val: Number of validation scenes.
        frames: Key frames per scene, 2 Hz.
        image_size: (width, height), pixels.
        view_distance: How far the cameras and the LiDAR see, metres.
        seed: Seed of everything.
        camera: Camera and light settings.
        legacy_infos: Whether the two older info pickle styles are written too.
        camera_sweeps: Images before and after that of every key frame, per camera, 12 Hz; nuScenes formats only.
        image_classes: Whether every image of a key frame has a class map as GroundedSAM would paint it; nuScenes formats only.
        preset: Name of the preset the values come from, for the record.
    """

    grids: dict[str, VoxelGrid]
    scenes_train: int = 8
    scenes_val: int = 2
    frames: int = 4
    image_size: tuple[int, int] = (200, 112)
    view_distance: float = 48.0
    seed: int = 0
    camera: CameraSettings = field(default_factory=CameraSettings)
    legacy_infos: bool = False
    camera_sweeps: int = 0
    image_classes: bool = False
    preset: str = 'tiny'

    def __post_init__(self) -> None:
        if not self.grids or any(name not in FORMATS for name in self.grids):
            raise ValueError(f'formats must be among {FORMATS}, got {tuple(self.grids)}')
        if KITTI360 in self.grids:
            self._check_kitti360()
        if self.scenes_train < 0 or self.scenes_val < 0 or self.scenes_train + self.scenes_val < 1:
            raise ValueError(
                'the number of scenes must be >= 0 and at least one in total, got '
                f'--scenes-train {self.scenes_train} --scenes-val {self.scenes_val}'
            )
        if self.frames < 1:
            raise ValueError(f'--frames must be at least 1, got {self.frames}')
        if not 0 <= self.camera_sweeps <= MAX_CAMERA_SWEEPS:
            raise ValueError(
                f'--camera-sweeps must lie in 0..{MAX_CAMERA_SWEEPS}, as many as lie between two key frames, got '
                f'{self.camera_sweeps}'
            )
        if len(self.image_size) != 2 or min(self.image_size) < 16:
            raise ValueError(f'--image-size must be WIDTHxHEIGHT with at least 16 pixels each, got {self.image_size}')
        if self.seed < 0:
            raise ValueError(f'--seed must be >= 0, got {self.seed}')
        reach = max(max(abs(v) for v in (*grid.lower[:2], *grid.upper[:2])) for grid in self.grids.values())
        if self.view_distance < reach:
            raise ValueError(
                f'the view distance of {self.view_distance} m does not cover the label range of {reach} m; '
                'choose a larger view_distance or a smaller --range'
            )
        side = 2 * (self.view_distance + 5)
        drive = 0.5 * (self.frames - 1) * _MAX_SPEED
        if side * (side + drive) * 17 / self.world_voxel**3 > _MAX_WORLD_VOXELS:
            raise ValueError(
                f'voxels of {self.voxel_size} m over a view distance of {self.view_distance} m and {self.frames} frames '
                'need too much memory; choose a larger --voxel-size, a smaller --range or fewer --frames'
            )

    def _check_kitti360(self) -> None:
        _check_alone(tuple(self.grids))
        if self.legacy_infos or self.camera_sweeps or self.image_classes:
            raise ValueError(
                f'--legacy-infos, --camera-sweeps and --image-classes are for the nuScenes formats; {KITTI360} has no '
                'annotation files'
            )
        if max(self.scenes_train, self.scenes_val) > MAX_KITTI360_SCENES or self.frames > MAX_KITTI360_FRAMES:
            raise ValueError(
                f'the six digits of a frame of {KITTI360} are enough for {MAX_KITTI360_SCENES} scenes of {MAX_KITTI360_FRAMES} '
                f'frames, got --scenes-train {self.scenes_train} --scenes-val {self.scenes_val} --frames {self.frames}'
            )

    @property
    def voxel_size(self) -> float:
        """Smallest label voxel edge, metres."""
        return min(min(grid.voxel_size) for grid in self.grids.values())

    @property
    def reach(self) -> float:
        """Horizontal distance of the farthest corner of a label grid from its origin, metres."""
        corners = [np.maximum(np.abs(grid.lower[:2]), np.abs(grid.upper[:2])) for grid in self.grids.values()]
        return float(max(np.hypot(*corner) for corner in corners))

    @property
    def world_voxel(self) -> float:
        """Edge of the world's voxels: at most half a label voxel, so that rotated label grids have no holes. Metres."""
        return min(0.2, self.voxel_size / 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain json-able description."""
        plain = asdict(self)
        plain['grids'] = {name: grid_dict(grid) for name, grid in self.grids.items()}
        plain['generator_version'] = GENERATOR_VERSION
        return json.loads(json.dumps(plain))

    def hash(self) -> str:
        """Identifies the content of the data set."""
        plain = self.to_dict()
        for grid in plain['grids'].values():
            del grid['ahead']  # follows from the format
        for option in ('camera_sweeps', 'image_classes'):
            if not plain[option]:  # data sets made before there was the option are the same
                del plain[option]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _check_alone(formats: tuple[str, ...]) -> None:
    if KITTI360 in formats and len(formats) > 1:
        raise ValueError(
            f'{KITTI360} has a vehicle with one camera of its own, so it cannot be generated together with other formats, got '
            f'{formats}'
        )


def grid_dict(grid: VoxelGrid) -> dict[str, Any]:
    """The dict a dataset base config holds for ``grid``, with lists instead of tuples."""
    size = grid.voxel_size
    return dict(
        point_cloud_range=list(grid.point_cloud_range),
        voxel_size=size[0] if len(set(size)) == 1 else list(size),
        shape=list(grid.shape),
        frame=grid.frame,
        free_index=grid.free_index,
        ignore_index=grid.ignore_index,
        class_names=list(grid.class_names),
        ahead=grid.ahead,
    )


def build_config(
    formats: tuple[str, ...] = ('occ3d',),
    preset: str = 'tiny',
    voxel_size: float | None = None,
    point_cloud_range: tuple[float, ...] | None = None,
    image_size: tuple[int, int] | None = None,
    camera: CameraSettings | None = None,
    **kwargs,
) -> SyntheticConfig:
    """Fills a configuration from a preset.

    Args:
        formats: Label formats, among ``FORMATS``.
        preset: ``'tiny'``, ``'small'`` or ``'full'`` (the benchmarks' own grids and images).
        voxel_size: Edge of the label voxels in metres instead of the preset's.
        point_cloud_range: Six numbers in metres instead of the preset's, in the label frame. With both nuScenes formats
            they are taken in the ego frame, and the LiDAR-frame grid gets the same numbers lowered by ``FRAME_Z_SHIFT`` in z.
        image_size: (width, height) instead of the preset's.
        camera: Camera settings instead of the preset's.
        **kwargs: Other fields of :class:`SyntheticConfig`.

    Raises:
        ValueError: If the preset is unknown or the numbers do not fit together.
    """
    if preset not in PRESETS:
        raise ValueError(f'preset must be one of {tuple(PRESETS)}, got {preset!r}')
    _check_alone(tuple(formats))
    values = (KITTI360_PRESETS if KITTI360 in formats else PRESETS)[preset]
    grids = {}
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f'formats must be among {FORMATS}, got {name!r}')
        benchmark = BENCHMARKS[name].grid
        pc_range = values.get(name, benchmark.point_cloud_range)
        if point_cloud_range is not None:
            pc_range = tuple(float(v) for v in point_cloud_range)
            if len(pc_range) != 6:
                raise ValueError(f'--range needs six numbers x0 y0 z0 x1 y1 z1 in metres, got {pc_range}')
            if len(formats) > 1 and name == 'surroundocc':
                pc_range = tuple(round(v - FRAME_Z_SHIFT, 6) if i % 3 == 2 else v for i, v in enumerate(pc_range))
        size = voxel_size or values['voxel_size'] or benchmark.voxel_size[0]
        if size <= 0:
            raise ValueError(f'--voxel-size must be positive, got {size}')
        cells = [(pc_range[i + 3] - pc_range[i]) / size for i in range(3)]
        if any(abs(c - round(c)) > 1e-3 or round(c) < 1 for c in cells):
            raise ValueError(
                f'the range {pc_range} of {name} is not a whole number of voxels of {size} m '
                f'({cells[0]:g} x {cells[1]:g} x {cells[2]:g}); change --range or --voxel-size'
            )
        shape = tuple(round(c) for c in cells)
        grids[name] = replace(benchmark, point_cloud_range=pc_range, voxel_size=size, shape=shape)
    reach = max(max(abs(v) for v in (*grid.lower[:2], *grid.upper[:2])) for grid in grids.values())
    kwargs.setdefault('view_distance', max(values['view_distance'], 1.5 * reach))
    return SyntheticConfig(
        grids=grids,
        image_size=tuple(image_size or values['image_size']),
        camera=camera or CameraSettings(samples=values['samples']),
        preset=preset,
        **kwargs,
    )
