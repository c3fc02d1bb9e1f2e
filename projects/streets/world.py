"""The world of one scene: static voxels, objects at a moment, and the surface points labels are made from."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import ndimage

from .config import CLASS_ID, SyntheticConfig
from .materials import MATERIAL_CLASS, draw_palette
from .objects import OBJECT_VOXEL
from .placement import Actor, place_actors
from .ray_cast import BLOCK, ObjectArrays, cast_rays
from .scene import FRAME_TIME, Scene, draw_scene, scene_rng
from .shading import Light, draw_light
from .street import Canvas, build_street

# How far inside an exposed face a surface sample lies, in voxels. Less than half so that it belongs to its own voxel.
_INSET = 0.05


@njit(cache=True, nogil=True)
def _exposed(volume, fill, points, materials):
    """Voxels with an empty neighbour; the sample point lies next to the exposed faces. Counts only if ``fill`` is False."""
    nx, ny, nz = volume.shape
    n = 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                m = volume[x, y, z]
                if m == 0:
                    continue
                px = x == nx - 1 or volume[x + 1, y, z] == 0
                mx = x == 0 or volume[x - 1, y, z] == 0
                py = y == ny - 1 or volume[x, y + 1, z] == 0
                my = y == 0 or volume[x, y - 1, z] == 0
                pz = z == nz - 1 or volume[x, y, z + 1] == 0
                mz = z > 0 and volume[x, y, z - 1] == 0
                if not (px or mx or py or my or pz or mz):
                    continue
                if fill:
                    shift = 0.5 - _INSET
                    points[n, 0] = x + 0.5 + shift * (int(px) - int(mx))
                    points[n, 1] = y + 0.5 + shift * (int(py) - int(my))
                    points[n, 2] = z + 0.5 + shift * (int(pz) - int(mz))
                    materials[n] = m
                n += 1
    return n


def surface_points(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surface samples of a voxel volume: (P, 3) float32 in voxels from its corner, and (P,) uint8 materials."""
    empty = np.zeros((0, 3), np.float32), np.zeros(0, np.uint8)
    count = _exposed(volume, False, *empty)
    points, materials = np.zeros((count, 3), np.float32), np.zeros(count, np.uint8)
    _exposed(volume, True, points, materials)
    return points, materials


@dataclass
class Hits:
    """What R rays met: distance (R,) float32 in metres, -1 = nothing; material (R,) uint8; object (R,) int32, -1 = static;
    normal (R, 3) float32, empty if not asked for."""

    t: np.ndarray
    material: np.ndarray
    obj: np.ndarray
    normal: np.ndarray


class World:
    """Static voxels and moving objects of one scene.

    The world frame is gravity aligned with the road surface at z = 0; ``scene.to_global`` leads on to the global frame.

    Args:
        config: The data set's configuration.
        index: Number of the scene.
    """

    def __init__(self, config: SyntheticConfig, index: int):
        self.config = config
        self.scene: Scene = draw_scene(config, index)
        self.light: Light = draw_light(self.scene.light, scene_rng(config, index, 1))
        self.palette = draw_palette(scene_rng(config, index, 2))
        times = np.linspace(-0.1, self.scene.duration + 0.1, 16)
        track = np.array([self.ego_pose(time)[:2, 3] for time in times])
        margin = config.view_distance + 2.0
        canvas = Canvas(track.min(0) - margin, np.ptp(track, axis=0) + 2 * margin, config.world_voxel)
        build_street(self.scene, canvas, scene_rng(config, index, 3))
        self.voxel = float(canvas.voxel)
        self.lower = canvas.lower.astype(np.float64)
        self.voxels = canvas.voxels
        self.flat = self.voxels.reshape(-1)
        self.dims = np.array(self.voxels.shape, dtype=np.int64)
        self.coarse = _empty_distance(self.voxels)
        points, materials = surface_points(self.voxels)
        self.surface = (points * self.voxel + self.lower).astype(np.float32)
        self.surface_material = materials
        self.actors: list[Actor] = place_actors(self.scene, canvas, config.view_distance, scene_rng(config, index, 4))
        self._canvas_ground = canvas.ground
        self.paints = np.array([actor.paints for actor in self.actors]).reshape(-1, 2, 3)
        self.actor_class = np.array([CLASS_ID[actor.name] for actor in self.actors], dtype=np.uint8)
        self.actor_surface = [surface_points(actor.model)[0] * np.float32(OBJECT_VOXEL) for actor in self.actors]
        self._pack()

    def _pack(self) -> None:
        dims = np.array([actor.model.shape for actor in self.actors], dtype=np.int64).reshape(-1, 3)
        sizes = dims.prod(axis=1)
        self._dims = dims
        self._offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if len(sizes) else np.zeros(0, np.int64)
        flat = [actor.model.reshape(-1) for actor in self.actors]
        self._data = np.concatenate(flat) if flat else np.zeros(0, np.uint8)

    def ego_pose(self, time: float) -> np.ndarray:
        """Ego -> world, (4, 4), at ``time`` seconds after the first key frame."""
        return self.scene.drive.pose(self.scene.axis, time)

    def key_time(self, frame: int) -> float:
        """Seconds of key frame ``frame`` after the first one."""
        return frame * FRAME_TIME

    def objects_at(self, time: float) -> ObjectArrays:
        """The objects' voxel models at ``time`` seconds."""
        half = 0.5 * OBJECT_VOXEL * self._dims
        poses = np.array([actor.pose(self.scene, time) for actor in self.actors]).reshape(-1, 3)
        centre = np.zeros((len(poses), 3))
        centre[:, :2] = poses[:, :2]
        for k, (x, y, _) in enumerate(poses):
            centre[k, 2] = self._canvas_ground(x, y) + half[k, 2]
        return ObjectArrays(
            centre=centre,
            cos_sin=np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=1),
            half=half,
            radius=np.linalg.norm(half, axis=1),
            voxel=np.full(len(poses), OBJECT_VOXEL),
            dims=self._dims,
            offset=self._offset,
            data=self._data,
        )

    def cast(
        self, objects: ObjectArrays, origins: np.ndarray, directions: np.ndarray, active: np.ndarray, normals: bool = False
    ) -> Hits:
        """Casts rays up to the view distance, see :func:`~.ray_cast.cast_rays`."""
        count = len(directions)
        hits = Hits(
            np.empty(count, np.float32),
            np.empty(count, np.uint8),
            np.empty(count, np.int32),
            np.zeros((count if normals else 0, 3), np.float32),
        )
        cast_rays(
            self.flat,
            self.dims,
            self.coarse,
            self.lower,
            self.voxel,
            objects,
            active,
            np.ascontiguousarray(origins, dtype=np.float64).reshape(-1, 3),
            np.ascontiguousarray(directions, dtype=np.float64),
            self.config.view_distance,
            hits.t,
            hits.material,
            hits.obj,
            hits.normal,
        )
        return hits

    def classes(self, hits: Hits) -> np.ndarray:
        """Class ids (R,) uint8 of hits: 0 others, 1..16, 17 = nothing hit."""
        classes = MATERIAL_CLASS[hits.material]
        on_object = hits.obj >= 0
        classes[on_object] = self.actor_class[hits.obj[on_object]]
        classes[hits.t < 0] = CLASS_ID['free']
        return classes


def _empty_distance(voxels: np.ndarray) -> np.ndarray:
    """Chessboard distance in blocks from every block of BLOCK^3 voxels to the next one that is not empty, int32."""
    shape = [-(-n // BLOCK) for n in voxels.shape]
    occupied = voxels > 0
    for axis, blocks in enumerate(shape):
        starts = np.arange(blocks) * BLOCK
        occupied = np.logical_or.reduceat(occupied, starts, axis=axis)
    if not occupied.any():
        return np.full(shape, max(shape), dtype=np.int32)
    return ndimage.distance_transform_cdt(~occupied, metric='chessboard').astype(np.int32)
