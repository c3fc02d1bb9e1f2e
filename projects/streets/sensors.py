"""Cameras and LiDAR: mounting, calibration, images with class and depth maps, point clouds."""

from dataclasses import dataclass

import cv2
import numpy as np

from projects.occ.datasets.sscbench_kitti360_dataset import CAM2IMG, CAM2VELO, IMAGE_WH
from projects.occ.datasets.sscbench_kitti360_dataset import CAMERA as KITTI360_CAMERA

from .config import SyntheticConfig
from .geometry import rotate, rotation_zyx, spherical
from .materials import MATERIAL_AMPLITUDE, MATERIAL_FREQUENCY, MATERIAL_REFLECTANCE, MATERIAL_TEXTURE, Material
from .ray_cast import ObjectArrays
from .shading import shade
from .world import Hits, World

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')
# per camera: yaw (deg), position in the ego frame (m), focal length for 1600 pixels, trigger time relative to the LiDAR (s)
_MOUNTS = {
    'CAM_FRONT': (0.0, (1.70, 0.0, 1.51), 1265.0, -0.035),
    'CAM_FRONT_RIGHT': (-56.0, (1.55, -0.49, 1.50), 1262.0, -0.027),
    'CAM_FRONT_LEFT': (55.0, (1.53, 0.49, 1.51), 1270.0, -0.043),
    'CAM_BACK': (180.0, (0.03, 0.0, 1.57), 805.0, -0.010),
    'CAM_BACK_LEFT': (109.0, (1.03, 0.48, 1.58), 1257.0, -0.002),
    'CAM_BACK_RIGHT': (-110.5, (1.02, -0.48, 1.56), 1260.0, -0.020),
}
_LIDAR_POSITION = (0.94, 0.0, 1.84)
_KITTI360_LIDAR_POSITION = (0.85, 0.0, 1.73)
LIDAR_ELEVATIONS = np.radians(np.linspace(-30.67, 10.67, 32))
LIDAR_AZIMUTHS = 1084
_MIN_RANGE = 1.0


@dataclass(frozen=True)
class Camera:
    """Calibration of one camera.

    Attributes:
        name: nuScenes channel.
        cam2ego: (4, 4), camera (x right, y down, z forward) -> ego.
        cam2img: (3, 3), pixels, pixel centres at +0.5.
        offset: Trigger time relative to the LiDAR, seconds.
    """

    name: str
    cam2ego: np.ndarray
    cam2img: np.ndarray
    offset: float


@dataclass(frozen=True)
class Rig:
    """All sensors of a scene: cameras, those of nuScenes in the order of ``CAMERAS``; lidar2ego (4, 4)."""

    cameras: tuple[Camera, ...]
    lidar2ego: np.ndarray


@dataclass
class View:
    """One rendered image.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        class_map: (H, W) uint8 class at the pixel centre: 0 others, 1..16, 17 = nothing within the view distance.
        depth: (H, W) float32, z in the camera frame at the pixel centre, metres, -1 = nothing.
        origin, directions, t: Rays through the pixel centres, row by row, world frame: (3,), (H * W, 3) unit vectors, (H * W,)
            metres along the ray, -1 = nothing.
    """

    image: np.ndarray
    class_map: np.ndarray
    depth: np.ndarray
    origin: np.ndarray
    directions: np.ndarray
    t: np.ndarray


def draw_rig(config: SyntheticConfig, rng: np.random.Generator) -> Rig:
    """A nuScenes-like rig with small calibration differences; intrinsics scaled from 1600x900, cropped about the centre row."""
    width, height = config.image_size
    scale = width / 1600
    cameras = []
    for name in CAMERAS:
        yaw, position, focal, offset = _MOUNTS[name]
        angles = np.radians(np.array([yaw, 0.0, 0.0]) + rng.normal(0, (0.6, 0.4, 0.3)))
        cam2ego = np.eye(4)
        # columns of the inner matrix: right, down and forward of a camera that looks along +x
        forward = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        cam2ego[:3, :3] = rotation_zyx(*angles) @ forward
        cam2ego[:3, 3] = np.array(position) + rng.normal(0, 0.01, 3)
        focal = focal * (1 + rng.normal(0, 0.003)) * scale
        cx = (800 + rng.uniform(-25, 25)) * scale
        cy = (488 + rng.uniform(-12, 12)) * scale + 0.5 * (height - 900 * scale)
        cameras.append(Camera(name, cam2ego, np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]]), offset))
    lidar2ego = np.eye(4)
    lidar2ego[:3, :3] = rotation_zyx(*np.radians(np.array([-90.0, 0.0, 0.0]) + rng.normal(0, (0.5, 0.3, 0.3))))
    lidar2ego[:3, 3] = np.array(_LIDAR_POSITION) + rng.normal(0, 0.005, 3)
    return Rig(tuple(cameras), lidar2ego)


def kitti360_rig(config: SyntheticConfig) -> Rig:
    """KITTI-360's left camera and LiDAR as SSCBench calibrates them, the same in all scenes; intrinsics scaled from 1408x376,
    cropped about the centre row. The LiDAR is level, 1.73 m above the road; the camera's times are those of the LiDAR."""
    width, height = config.image_size
    scale = width / IMAGE_WH[0]
    cam2img = np.array(CAM2IMG)
    cam2img[:2] *= scale
    cam2img[1, 2] += 0.5 * (height - IMAGE_WH[1] * scale)
    lidar2ego = np.eye(4)
    lidar2ego[:3, 3] = _KITTI360_LIDAR_POSITION
    return Rig((Camera(KITTI360_CAMERA, lidar2ego @ np.array(CAM2VELO), cam2img, 0.0),), lidar2ego)


def pixel_directions(camera: Camera, size: tuple[int, int], sample: int = 0) -> np.ndarray:
    """One ray per pixel, row by row, in the camera frame: (H * W, 3) with z = 1.

    Sample 0 goes through the pixel centres; the next ones follow a low-discrepancy sequence inside the pixel.
    """
    width, height = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    du, dv = (0.5 + 0.7548776662 * sample) % 1.0, (0.5 + 0.5698402910 * sample) % 1.0
    x = (u + du - camera.cam2img[0, 2]) / camera.cam2img[0, 0]
    y = (v + dv - camera.cam2img[1, 2]) / camera.cam2img[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)


def render(world: World, camera: Camera, pose: np.ndarray, objects: ObjectArrays, rng: np.random.Generator) -> View:
    """Takes a picture.

    Pixels at the border of surfaces get more rays, as many as the camera settings say.

    Args:
        world: The scene.
        camera: Calibration.
        pose: (4, 4) ego -> world at the camera's time.
        objects: The objects at the camera's time.
        rng: Sensor noise.
    """
    width, height = world.config.image_size
    cam2world = pose @ camera.cam2ego
    origin = np.ascontiguousarray(cam2world[:3, 3])
    # objects wholly behind the camera
    ahead = rotate(objects.centre - origin, cam2world[:3, :3].T)[:, 2] > -objects.radius

    def trace(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, Hits, np.ndarray]:
        norm = np.linalg.norm(rays, axis=1)
        directions = rotate(rays / norm[:, None], cam2world[:3, :3])
        hits = world.cast(objects, origin, directions, np.flatnonzero(ahead), normals=True)
        return norm, directions, hits, _radiance(world, camera, objects, origin, directions, hits)

    norm, directions, hits, radiance = trace(pixel_directions(camera, world.config.image_size))
    surface = (hits.obj.astype(np.int64) * 256 + np.where(hits.t < 0, 0, hits.material)).reshape(height, width)
    border = np.flatnonzero(_borders(surface))
    samples = world.config.camera.samples
    for sample in range(1, samples):
        rays = pixel_directions(camera, world.config.image_size, sample)[border]
        radiance[border] += trace(rays)[3]
    radiance[border] /= samples
    return View(
        image=_expose(radiance.reshape(height, width, 3), world, rng),
        class_map=world.classes(hits).reshape(height, width),
        depth=np.where(hits.t >= 0, hits.t / norm, -1).reshape(height, width).astype(np.float32),
        origin=origin,
        directions=directions,
        t=hits.t,
    )


def _borders(surface: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour of another surface, (H, W) bool."""
    border = np.zeros(surface.shape, dtype=bool)
    rows, columns = surface[1:] != surface[:-1], surface[:, 1:] != surface[:, :-1]
    border[1:] |= rows
    border[:-1] |= rows
    border[:, 1:] |= columns
    border[:, :-1] |= columns
    return border


def _radiance(world: World, camera: Camera, objects: ObjectArrays, origin, directions, hits: Hits) -> np.ndarray:
    """Linear RGB (R, 3) float32 of rays; values above 1.4 are clipped, so that a lamp does not outshine its neighbours."""
    settings = world.config.camera
    radiance = np.empty((len(directions), 3), np.float32)
    shade(
        world.flat,
        world.dims,
        world.coarse,
        world.lower,
        world.voxel,
        objects,
        np.arange(len(world.actors), dtype=np.int64),
        world.paints,
        world.palette,
        MATERIAL_TEXTURE,
        MATERIAL_AMPLITUDE,
        MATERIAL_FREQUENCY,
        world.light,
        settings.shadows,
        settings.haze_distance,
        1.0 / camera.cam2img[0, 0],
        origin,
        directions,
        hits.t,
        hits.material,
        hits.obj,
        hits.normal,
        radiance,
    )
    return np.minimum(radiance, np.float32(1.4))


def _expose(radiance: np.ndarray, world: World, rng: np.random.Generator) -> np.ndarray:
    """Vignetting, exposure, gamma, noise: (H, W, 3) linear -> uint8."""
    settings = world.config.camera
    height, width = radiance.shape[:2]
    y = (np.arange(height)[:, None] + 0.5) / height - 0.5
    x = (np.arange(width)[None, :] + 0.5) / width - 0.5
    falloff = 1 - settings.vignetting * 2 * (x * x + y * y)
    exposure = np.exp(settings.exposure_jitter * rng.standard_normal()) * 0.98
    image = np.clip(radiance * (falloff * exposure)[..., None], 0, None).astype(np.float32)
    image = 255 * cv2.pow(np.clip(image, 0, 1), 1 / 2.2)
    if settings.noise > 0:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image += noise * settings.noise * (0.5 + 0.5 * image / 255)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@dataclass
class Sweep:
    """One LiDAR sweep.

    Attributes:
        points: (P, 5) float32 in the LiDAR frame: x, y, z in metres, intensity 0..255, ring 0..31 from below.
        point_object: (P,) int32 object index of every point, -1 = static.
        point_class: (P,) uint8 class of every point, 0 others, 1..16.
        directions, t: All rays, also those that returned nothing, world frame: (R, 3) unit vectors, (R,) metres, -1 = nothing.
    """

    points: np.ndarray
    point_object: np.ndarray
    point_class: np.ndarray
    directions: np.ndarray
    t: np.ndarray


def scan(world: World, lidar2world: np.ndarray, objects: ObjectArrays, rng: np.random.Generator) -> Sweep:
    """Takes a sweep of 32 rings, all rays at the same moment."""
    azimuth = np.linspace(np.pi, -np.pi, LIDAR_AZIMUTHS, endpoint=False)
    grid_azimuth, grid_elevation = np.meshgrid(azimuth, LIDAR_ELEVATIONS, indexing='ij')
    ring = np.tile(np.arange(32), LIDAR_AZIMUTHS)
    local = spherical(grid_azimuth.ravel(), grid_elevation.ravel())
    directions = rotate(local, lidar2world[:3, :3])
    hits = world.cast(objects, lidar2world[:3, 3], directions, np.arange(len(world.actors), dtype=np.int64), normals=True)
    facing = np.abs((hits.normal * directions).sum(axis=1))
    reflectance = MATERIAL_REFLECTANCE[hits.material]
    painted = np.isin(hits.material, (Material.PAINT, Material.PAINT2)) & (hits.obj >= 0)
    if painted.any():
        which = (hits.material[painted] == Material.PAINT2).astype(np.int64)
        reflectance[painted] = 10 + 90 * world.paints[hits.obj[painted], which].mean(axis=1)
    intensity = reflectance * (0.3 + 0.7 * facing) * rng.normal(1.0, 0.1, len(directions))
    distance = hits.t + rng.normal(0, 0.015, len(directions))
    # dark surfaces return less often
    keep = (hits.t > _MIN_RANGE) & (rng.random(len(directions)) > 0.02 + 0.15 * (intensity < 6))
    points = np.empty((int(keep.sum()), 5), np.float32)
    points[:, :3] = local[keep] * distance[keep, None]
    points[:, 3] = np.clip(np.rint(intensity[keep]), 0, 255)
    points[:, 4] = ring[keep]
    return Sweep(points, hits.obj[keep], world.classes(hits)[keep], directions, hits.t)


def survey_directions(world: World, lidar_height: float) -> np.ndarray:
    """Directions (R, 3) of the dense scan that stands for the LiDAR sweeps between key frames, LiDAR frame.

    Below the horizon the rays meet flat ground at even distances, so that no voxel is missed; above they are evenly spaced.
    """
    step = 0.5 * world.config.voxel_size
    reach = min(world.config.reach, world.config.view_distance)
    lowest = -LIDAR_ELEVATIONS[0]
    ground = np.arange(lidar_height / np.tan(lowest), reach, step)
    rise = np.arange(-np.arctan2(lidar_height, reach), LIDAR_ELEVATIONS[-1], step / (0.6 * reach))
    elevation = np.concatenate([-np.arctan2(lidar_height, ground), rise])
    azimuth = np.arange(0, 2 * np.pi, step / (0.6 * reach))
    grid_azimuth, grid_elevation = np.meshgrid(azimuth, elevation, indexing='ij')
    return spherical(grid_azimuth.ravel(), grid_elevation.ravel())
