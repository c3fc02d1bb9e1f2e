"""One key frame with everything that goes to disk, made from a world."""

import hashlib
from dataclasses import dataclass

import numpy as np

from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.structures.frame_record import BoxRecord, CameraRecord, FrameRecord

from .class_maps import class_map, painted_classes
from .config import KITTI360, MAX_CAMERA_SWEEPS, VERSION
from .labels import Survey, label_volume, ray_lengths, seen, survey, to_kitti360, to_surroundocc
from .scene import scene_rng
from .sensors import Camera, Rig, View, draw_rig, kitti360_rig, render, scan, survey_directions
from .world import World

# Key frames whose LiDAR poses are used for the accumulated view, evenly spread over those within reach.
_MAX_SURVEYS = 5
# Streams of random numbers of a scene; 0..4 belong to the world.
_RIG, _CAMERA, _LIDAR, _NOISE = 5, 6, 7, 8
_SWEEP, _PAINT = 18, 19
_SWEEP_TIME = 1 / 12  # seconds between images of a camera


@dataclass
class Frame:
    """One key frame.

    Attributes:
        record: Poses, calibration, file names, boxes.
        views: Rendered images by camera name.
        sweep_images: Offset, as in ``record.sweeps`` -> camera name -> (H, W, 3) uint8 RGB.
        painted: Camera name -> (H, W) int8, see :func:`painted_classes`; empty if not wanted.
        points: (P, 5) float32 LiDAR sweep.
        point_classes: (P,) uint8 class of every point, 0 others, 1..16.
        labels: Format -> (X, Y, Z) uint8 labels in the format's ids.
        mask_lidar, mask_camera: Format -> (X, Y, Z) bool; ``mask_camera`` is a subset of ``mask_lidar``.
    """

    record: FrameRecord
    views: dict[str, View]
    sweep_images: dict[int, dict[str, np.ndarray]]
    painted: dict[str, np.ndarray]
    points: np.ndarray
    point_classes: np.ndarray
    labels: dict[str, np.ndarray]
    mask_lidar: dict[str, np.ndarray]
    mask_camera: dict[str, np.ndarray]


def token(*parts: object) -> str:
    """A nuScenes-like token, 32 hexadecimal digits."""
    return hashlib.md5('/'.join(map(str, parts)).encode()).hexdigest()


class FrameMaker:
    """Makes the key frames of one scene.

    Args:
        world: The scene's world.
    """

    def __init__(self, world: World):
        self.world = world
        self.config = world.config
        self.index = world.scene.index
        if KITTI360 in self.config.grids:
            self.rig: Rig = kitti360_rig(self.config)
        else:
            self.rig = draw_rig(self.config, scene_rng(self.config, self.index, _RIG))
        self.scene_name = f'scene-{self.index + 1:04d}'
        self.scene_token = token('scene', self.config.seed, self.index)
        self.log = f'n900-seed{self.config.seed}-{self.scene_name}'
        # microseconds; scenes are an hour apart
        self.start = 1_600_000_000_000_000 + self.index * 3_600_000_000 + 512_404
        self._survey_directions = survey_directions(world, self.rig.lidar2ego[2, 3])

    def __len__(self) -> int:
        return self.config.frames

    def sample_token(self, frame: int) -> str:
        """Token of a key frame, '' outside the scene."""
        return token('sample', self.config.seed, self.index, frame) if 0 <= frame < len(self) else ''

    def make(self, frame: int) -> Frame:
        """Renders, scans and labels key frame ``frame``."""
        world, config = self.world, self.config
        time = world.key_time(frame)
        pose, objects = world.ego_pose(time), world.objects_at(time)
        lidar2world = pose @ self.rig.lidar2ego
        views = {}
        for number, camera in enumerate(self.rig.cameras):
            moment = time + camera.offset
            rng = scene_rng(config, self.index, _CAMERA, frame, number)
            views[camera.name] = render(world, camera, world.ego_pose(moment), world.objects_at(moment), rng)
        sweep = scan(world, lidar2world, objects, scene_rng(config, self.index, _LIDAR, frame))
        look = self.look_around(frame)
        look.rays.append((lidar2world[:3, 3], sweep.directions, ray_lengths(world, sweep.t)))
        camera_rays = [self._view_rays(views[camera.name], camera) for camera in self.rig.cameras]
        labels, mask_lidar, mask_camera = {}, {}, {}
        for name, grid in config.grids.items():
            label2world = pose if grid.frame == 'ego' else lidar2world
            world2label = np.linalg.inv(label2world)
            classes, mask_lidar[name] = label_volume(world, objects, grid, world2label, look, class_map(name))
            mask_camera[name] = seen(grid, world2label, camera_rays) & mask_lidar[name]
            if BENCHMARKS[name].label_format == 'rows':
                classes = to_surroundocc(classes, grid, scene_rng(config, self.index, _NOISE, frame))
            elif name == KITTI360:
                classes = to_kitti360(classes, mask_lidar[name], scene_rng(config, self.index, _NOISE, frame))
            labels[name] = classes
        boxes = self._boxes(objects, lidar2world, sweep.point_object, time)
        record = self._record(frame, pose, boxes)
        painted = {}
        for number, camera in enumerate(self.rig.cameras if config.image_classes else ()):
            rng = scene_rng(config, self.index, _PAINT, frame, number)
            painted[camera.name] = painted_classes(views[camera.name].class_map, rng)
        sweeps = {offset: self._sweep_images(frame, offset) for offset in record.sweeps}
        return Frame(record, views, sweeps, painted, sweep.points, sweep.point_class, labels, mask_lidar, mask_camera)

    def _sweep_images(self, frame: int, offset: int) -> dict[str, np.ndarray]:
        """Images ``offset`` twelfths of a second after those of a key frame, by camera."""
        world, images = self.world, {}
        for number, camera in enumerate(self.rig.cameras):
            moment = world.key_time(frame) + camera.offset + offset * _SWEEP_TIME
            rng = scene_rng(self.config, self.index, _SWEEP, frame, number, offset + MAX_CAMERA_SWEEPS)
            images[camera.name] = render(world, camera, world.ego_pose(moment), world.objects_at(moment), rng).image
        return images

    def look_around(self, frame: int) -> Survey:
        """What the LiDAR poses of the scene see of the world at key frame ``frame``: stands for the accumulated sweeps."""
        objects = self.world.objects_at(self.world.key_time(frame))
        return survey(self.world, objects, self._lidar_poses(frame), self._survey_directions)

    def _view_rays(self, view: View, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Origin, directions and lengths of rays through pixel centres, dense enough to meet every voxel of the grids."""
        width, height = self.config.image_size
        step = max(1, int(0.3 * self.config.voxel_size * camera.cam2img[0, 0] / self.config.reach))
        directions = view.directions.reshape(height, width, 3)[::step, ::step].reshape(-1, 3)
        t = view.t.reshape(height, width)[::step, ::step].reshape(-1)
        return view.origin, directions, ray_lengths(self.world, t)

    def _lidar_poses(self, frame: int) -> list[np.ndarray]:
        """LiDAR -> world of this key frame and of others of the scene within reach."""
        reach = max(max(grid.extent[:2]) / 2 for grid in self.config.grids.values())
        here = self.world.ego_pose(self.world.key_time(frame))[:2, 3]
        poses = [self.world.ego_pose(self.world.key_time(i)) for i in range(len(self))]
        near = [i for i, pose in enumerate(poses) if i != frame and np.hypot(*(pose[:2, 3] - here)) < reach]
        spread = np.linspace(0, len(near) - 1, min(len(near), _MAX_SURVEYS - 1)).round().astype(int)
        return [poses[i] @ self.rig.lidar2ego for i in (frame, *(near[i] for i in spread))]

    def _boxes(self, objects, lidar2world, point_object, time) -> BoxRecord:
        """Boxes within the view distance, in the LiDAR frame."""
        world, actors = self.world, self.world.actors
        world2lidar = np.linalg.inv(lidar2world)
        counts = np.bincount(point_object[point_object >= 0], minlength=len(actors))
        rows, names, numbers, velocities, tokens = [], [], [], [], []
        for k, actor in enumerate(actors):
            centre = world2lidar[:3, :3] @ objects.centre[k] + world2lidar[:3, 3]
            if np.hypot(*centre[:2]) > self.config.view_distance:
                continue
            heading = world2lidar[:2, :2] @ objects.cos_sin[k]
            step = 0.05
            before, after = (np.array(actor.pose(world.scene, time + dt)[:2]) for dt in (-step, step))
            rows.append([*centre, *(2 * objects.half[k]), np.arctan2(heading[1], heading[0])])
            names.append(actor.name)
            numbers.append(counts[k])
            tokens.append(token('instance', self.config.seed, self.index, k))
            velocities.append(world2lidar[:2, :2] @ (after - before) / (2 * step))
        return BoxRecord(
            np.array(rows, dtype=np.float64).reshape(-1, 7),
            names,
            np.array(numbers, dtype=np.int64),
            np.array(velocities, dtype=np.float64).reshape(-1, 2),
            tokens,
        )

    def _record(self, frame: int, pose: np.ndarray, boxes: BoxRecord) -> FrameRecord:
        world = self.world
        to_global, lidar2ego = world.scene.to_global, self.rig.lidar2ego
        ego2global = to_global @ pose
        stamp = self.start + round(world.key_time(frame) * 1e6)
        sample = self.sample_token(frame)

        def cameras(offset: int) -> dict[str, CameraRecord]:
            """The images so many twelfths of a second later."""
            records = {}
            for camera in self.rig.cameras:
                delay = camera.offset + offset * _SWEEP_TIME
                at_camera = to_global @ world.ego_pose(world.key_time(frame) + delay)
                camera_stamp = stamp + round(delay * 1e6)
                folder, name = 'sweeps' if offset else 'samples', f'{self.log}__{camera.name}__{camera_stamp}.jpg'
                records[camera.name] = CameraRecord(
                    img_path=f'{folder}/{camera.name}/{name}',
                    cam2img=camera.cam2img,
                    lidar2cam=np.linalg.inv(at_camera @ camera.cam2ego) @ ego2global @ lidar2ego,
                    cam2ego=camera.cam2ego,
                    ego2global=at_camera,
                    timestamp=camera_stamp / 1e6,
                    sample_data_token=token(sample, camera.name, offset) if offset else token(sample, camera.name),
                    image_wh=tuple(self.config.image_size),
                )
            return records

        count = self.config.camera_sweeps
        # nothing was recorded before the first key frame
        offsets = [offset for offset in range(-count, count + 1) if offset and (frame or offset > 0)]
        lidar_name = f'{self.log}__LIDAR_TOP__{stamp}.pcd.bin'
        return FrameRecord(
            token=sample,
            timestamp=stamp / 1e6,
            lidar_path=f'samples/LIDAR_TOP/{lidar_name}',
            lidar2ego=lidar2ego,
            ego2global=ego2global,
            cameras=cameras(0),
            sweeps={offset: cameras(offset) for offset in offsets},
            scene_name=self.scene_name,
            scene_token=self.scene_token,
            frame_idx=frame,
            prev=self.sample_token(frame - 1),
            next=self.sample_token(frame + 1),
            lidarseg_path=f'lidarseg/{VERSION}/{token(sample, "LIDAR_TOP")}_lidarseg.bin',
            boxes=boxes,
        )
