"""Pinhole cameras to look at a voxel grid from. Matrices act on column vectors; cameras look along +z, x right, y down."""

import numpy as np

from ..structures import VoxelGrid

MARGIN = 0.04  # of the picture, left free around the grid


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray = (0.0, 0.0, 1.0)) -> np.ndarray:
    """Reference frame -> camera (4, 4) float64 of a camera at ``eye`` that looks at ``target``; all (3,), metres.

    Raises:
        ValueError: If the camera would look along ``up`` or nowhere.
    """
    eye, forward = np.asarray(eye, dtype=np.float64), np.subtract(target, eye, dtype=np.float64)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-9:
        raise ValueError(f'a camera at {eye.tolist()} cannot look at {list(target)} with up={list(up)}')
    axes = np.stack([right, np.cross(forward, right), forward])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    ref2cam = np.eye(4)
    ref2cam[:3, :3], ref2cam[:3, 3] = axes, -axes @ eye
    return ref2cam


def project_matrix(ref2cam: np.ndarray, cam2img: np.ndarray) -> np.ndarray:
    """Reference frame -> (u*d, v*d, d, 1): (..., 4, 4) from ``ref2cam`` (..., 4, 4) and ``cam2img`` (..., 3, 3)."""
    ref2cam = np.asarray(ref2cam, dtype=np.float64)
    intrinsics = np.broadcast_to(np.eye(4), ref2cam.shape).copy()
    intrinsics[..., :3, :3] = cam2img
    return intrinsics @ ref2cam


def scale_image(ref2img: np.ndarray, scale_x: float, scale_y: float) -> np.ndarray:
    """The projection (..., 4, 4) into an image that is resized by these factors."""
    return np.diag([scale_x, scale_y, 1.0, 1.0]) @ np.asarray(ref2img, dtype=np.float64)


def overview_camera(
    grid: VoxelGrid,
    width: int,
    height: int,
    elevation: float = 35.0,
    azimuth: float = 20.0,
    distance: float = 1.2,
    turning: bool = False,
) -> np.ndarray:
    """A camera behind and above the grid that shows all of it.

    Args:
        grid: The grid.
        width: Width of the picture, pixels.
        height: Height of the picture, pixels.
        elevation: Angle above the horizon, degrees.
        azimuth: Angle to the right of straight behind, degrees.
        distance: Distance from the centre, in longest edges of the grid.
        turning: Take the same focal length and principal point for every azimuth, so that a camera that goes around the grid
            neither zooms nor cuts a corner off.

    Returns:
        ref2img (4, 4) float64, with the focal length and principal point that fill the picture.
    """
    ref2cam, low, high = _look_from(grid, elevation, azimuth, distance)
    if turning:
        bounds = [_look_from(grid, elevation, degrees, distance)[1:] for degrees in range(0, 360, 5)]
        low, high = np.min([low for low, _ in bounds], axis=0), np.max([high for _, high in bounds], axis=0)
    size = np.array([width, height], dtype=np.float64)
    focal = ((1 - 2 * MARGIN) * size / (high - low)).min()
    cam2img = np.eye(3)
    cam2img[0, 0] = cam2img[1, 1] = focal
    cam2img[:2, 2] = size / 2 - focal * (low + high) / 2
    return project_matrix(ref2cam, cam2img)


def _look_from(grid: VoxelGrid, elevation: float, azimuth: float, distance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference frame -> camera (4, 4), and the lowest and highest x / z and y / z (2,) of the grid's corners in the camera."""
    lower, extent = np.asarray(grid.lower), np.asarray(grid.extent)
    center = lower + extent / 2
    turn, tilt = np.deg2rad(azimuth), np.deg2rad(elevation)
    behind = np.array([-np.cos(turn), -np.sin(turn)])
    if grid.ahead_axis == 1:
        behind = np.array([-behind[1], behind[0]])
    direction = np.array([*(behind * np.cos(tilt)), np.sin(tilt)])
    ref2cam = look_at(center + direction * distance * extent.max(), center)
    corners = lower + extent * np.indices((2, 2, 2)).reshape(3, 8).T
    rays = corners @ ref2cam[:3, :3].T + ref2cam[:3, 3]
    rays = rays[:, :2] / rays[:, 2:]
    return ref2cam, rays.min(0), rays.max(0)
