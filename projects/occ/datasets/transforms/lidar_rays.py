"""Rays of camera pixels whose depth, and perhaps class, a LiDAR has measured."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.logging import print_log

from projects.occ.datasets.image_files import image_file
from projects.occ.datasets.label_formats import read_label
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.lidar_rays import (
    PixelPoints,
    draw_rays,
    dynamic_ids,
    last_label_of_pixel,
    log_class_balance,
    log_ray_weights,
    pixel_rays,
    project_points,
    published_counts,
    ray_file,
    read_ray_files,
)
from projects.occ.datasets.point_classes import benchmark_classes, read_point_classes
from projects.occ.structures import VoxelGrid

from .pseudo_labels import LoadPseudoLabels

_CHOICES = dict(
    balance=('data_set', 'sample', 'none'),
    point_classes=('files', 'voxels', 'none'),
    key_ego=('shared', 'per_camera'),
    label_lookup=('point', 'map'),
    missing=('skip', 'repeat'),
)
_HOW = 'docs/datasets.md, "LiDAR rays"'


@TRANSFORMS.register_module()
class LoadLidarRays(BaseTransform):
    """Draws rays through the pixels that LiDAR points of several frames fall on.

    Every point of a sweep is projected into the cameras of its own frame, with the motion of the vehicle between sweep and
    image; the ray starts at the camera and is given in the reference frame of the key frame, with the motion between the frames
    (matrices float64 throughout). A ray of a class that moves is true at the moment of its sweep alone, so that those of other
    frames are not drawn.

    Needs ``lidar_frames``, ``cam_names``, ``ori_img_wh`` and ``grid``: comes after ``LoadMultiViewImages`` and before
    ``RandomFlipScene``; the other transforms of the scene may come before or after. The data set's ``lidar_frames`` says which
    frames there are. Adds ``rays``, a dict of float32 ``origin`` (R, 3), ``direction`` (R, 3), ``uv`` (R, 2),
    ``depth_per_range`` (R,) and ``depth`` (R,), and int64 ``labels``, ``frame``, ``view`` and ``camera`` (R,), see ``Rays``;
    ``camera`` is the position in ``cam_names``. Rays are those of the original images, whatever happens to the network's.

    Args:
        num_rays: How many to draw, without replacement; a sample with fewer gives all that can be drawn.
        frames: Offsets of the frames whose rays are used, those that do not exist left out; None for all of the item.
        balance: What rare classes gain, ``exp(smoothing * (max(N) / N - 1))``: by the points N of each class in the data set
            (``'data_set'``), among this sample's candidates (``'sample'``), or nothing (``'none'``).
        class_counts: Points of each class of the grid for ``'data_set'``; None for those of nuScenes.
        smoothing: See ``balance``.
        neighbour_weight: Weight of rays of other frames than the key frame.
        dynamic_weight: Weight of those among them whose class moves.
        dynamic_classes: Ids of the classes that move; None: vehicles, cycles and people by the names of the grid's classes.
        min_depth: Least depth of a ray, metres.
        max_depth: Largest one, metres.
        point_classes: ``'files'``: of the point class file of each sweep (nuScenes-lidarseg, or ``.label`` files); frames that
            have none give rays without class. ``'voxels'``: of the voxel in its frame's label that a point lies in, for grids
            in the LiDAR frame (KITTI-360 has no classes of single points). ``'none'``: rays have no class.
        ray_files: Folders of RenderOcc's files, ``dict(depth=..., classes=...)``, the second one optional: points and classes
            come from these instead of from sweeps.
        class_maps: Dense class maps of the images take the place of ``point_classes``: ``dict(folder=..., pattern=...,
            class_map=...)``; ``pattern`` as in ``image_files`` (``'{image}.npy'``), ``class_map`` as in ``LoadPseudoLabels``
            (None: the stored ids are the grid's).
        point_dims: Numbers per point in LiDAR files of float32 rows.
        key_ego: ``'shared'``: one reference frame for all cameras. ``'per_camera'``: that of each camera's own moment in the
            key frame, as RenderOcc's code has it, some decimetres beside the labels; for the ego frame.
        label_lookup: ``'point'``: each ray has the class of its own point. ``'map'``: that of the last point in its pixel, as
            in RenderOcc's code.
        subpixel: Rays go through the point. False: through the centre of its pixel, as in RenderOcc's code.
        missing: Frames of ``frames`` that do not exist are left out (``'skip'``), or the key frame's rays stand in for them as
            rays of another frame, as in RenderOcc's code (``'repeat'``, needs ``frames``).
        backend_args: Arguments of mmengine's file backend.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        num_rays: int = 38400,
        frames: Sequence[int] | None = None,
        balance: str = 'data_set',
        class_counts: Sequence[float] | None = None,
        smoothing: float = 0.005,
        neighbour_weight: float = 0.3,
        dynamic_weight: float = 0.0,
        dynamic_classes: Sequence[int] | None = None,
        min_depth: float = 1.0,
        max_depth: float = float('inf'),
        point_classes: str = 'files',
        ray_files: Mapping[str, str] | None = None,
        class_maps: Mapping[str, Any] | None = None,
        point_dims: int = NUSCENES_POINT_DIMS,
        key_ego: str = 'shared',
        label_lookup: str = 'point',
        subpixel: bool = True,
        missing: str = 'skip',
        backend_args: dict | None = None,
    ) -> None:
        given = dict(balance=balance, point_classes=point_classes, key_ego=key_ego, label_lookup=label_lookup, missing=missing)
        for key, known in _CHOICES.items():
            if given[key] not in known:
                raise ValueError(f'LoadLidarRays.{key} must be one of {known}, got {given[key]!r}')
        if isinstance(num_rays, bool) or not isinstance(num_rays, int) or num_rays < 1:
            raise ValueError(f'LoadLidarRays.num_rays must be a positive whole number, got {num_rays!r}')
        for key, weight in dict(neighbour_weight=neighbour_weight, dynamic_weight=dynamic_weight).items():
            if not 0 <= weight < float('inf'):
                raise ValueError(f'LoadLidarRays.{key} must be a number from 0 on, got {weight}')
        if not 0 <= min_depth < max_depth:
            raise ValueError(f'LoadLidarRays needs 0 <= min_depth < max_depth, got {min_depth} and {max_depth}')
        if missing == 'repeat' and frames is None:
            raise ValueError("LoadLidarRays(missing='repeat') needs frames, the offsets of all frames that there should be")
        if ray_files is not None and ('depth' not in ray_files or set(ray_files) - {'depth', 'classes'}):
            raise ValueError(f'LoadLidarRays.ray_files must be dict(depth=FOLDER, classes=FOLDER), got {dict(ray_files)}')
        if class_maps is not None and ('folder' not in class_maps or set(class_maps) - {'folder', 'pattern', 'class_map'}):
            raise ValueError(
                f'LoadLidarRays.class_maps must be dict(folder=..., pattern=..., class_map=...), got {dict(class_maps)}'
            )
        self.num_rays = num_rays
        self.frames = None if frames is None else tuple(frames)
        self.balance = balance
        self.class_counts = None if class_counts is None else np.asarray(class_counts, dtype=np.float64)
        self.smoothing = smoothing
        self.neighbour_weight, self.dynamic_weight = neighbour_weight, dynamic_weight
        self.dynamic_classes = None if dynamic_classes is None else tuple(dynamic_classes)
        self.min_depth, self.max_depth = min_depth, max_depth
        self.point_classes = point_classes
        self.ray_files = ray_files
        self.class_maps = None if class_maps is None else {'pattern': '{image}.npy', **class_maps}
        self.map_reader = LoadPseudoLabels((class_maps or {}).get('class_map'), backend_args=backend_args)
        self.point_dims = point_dims
        self.key_ego = key_ego
        self.label_lookup = label_lookup
        self.subpixel = subpixel
        self.missing = missing
        self.backend_args = backend_args
        self._said: set[str] = set()

    def transform(self, results: dict) -> dict:
        """Draws the rays.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the item names no LiDAR file, a file is damaged or does not belong to the points, or this transform
                comes after ``RandomFlipScene``.
        """
        grid, token = results['grid'], results['token']
        if results.get('images_mirrored'):
            raise ValueError('LoadLidarRays projects points into images as they are on disk: put it before RandomFlipScene')
        parts, labels = [], []
        for scan in self._scans(results):
            points, classes = self._measure(scan, results, grid)
            rows = np.flatnonzero((points.depth >= max(self.min_depth, 1e-6)) & (points.depth <= self.max_depth))
            points = PixelPoints(points.camera[rows], points.uv[rows], points.depth[rows], points.point[rows])
            classes = classes[rows].astype(np.int64)
            if self.label_lookup == 'map':
                for camera in range(len(scan['cam_names'])):
                    here = points.camera == camera
                    classes[here] = last_label_of_pixel(points.uv[here], classes[here])
            parts.append((scan, points))
            labels.append(classes)
        frame = np.concatenate([np.full(len(part), scan['frame']) for (scan, _), part in zip(parts, labels)])
        every = np.concatenate(labels)
        drawn = draw_rays(self._log_weights(every, frame, grid), self.num_rays)
        if len(drawn) < self.num_rays:
            self._say(
                'few',
                f'frame {token} has {len(drawn)} rays that can be drawn, fewer than LoadLidarRays.num_rays={self.num_rays}: '
                'all of them are taken, here and in every other such frame',
                logging.INFO,
            )
        results['rays'] = self._rays(parts, drawn, results) | dict(labels=every[drawn], frame=frame[drawn].astype(np.int64))
        return results

    def _scans(self, results: Mapping[str, Any]) -> list[dict]:
        scans = {scan['frame']: scan for scan in results.get('lidar_frames', ())}
        if 0 not in scans:
            raise ValueError(
                f'frame {results["token"]}: the data set names no LiDAR sweep, so LoadLidarRays has nothing to project; set '
                f"dataset.data_prefix['pts'] ({_HOW})"
            )
        wanted = scans if self.frames is None else self.frames
        if self.missing == 'repeat':
            return [scans.get(offset) or dict(scans[0], frame=offset) for offset in wanted]
        chosen = [scans[offset] for offset in wanted if offset in scans]
        if not chosen:
            raise ValueError(
                f'frame {results["token"]} has none of LoadLidarRays.frames={self.frames}, only {sorted(scans)}; add 0, or set '
                f'dataset.lidar_frames ({_HOW})'
            )
        return chosen

    def _measure(self, scan: dict, results: dict, grid: VoxelGrid) -> tuple[PixelPoints, np.ndarray]:
        """Pixels and classes (M,) uint8 of one frame."""
        views = _cameras_of(scan, results)
        sizes = np.asarray(results['ori_img_wh'], dtype=np.float64)[views]
        unknown = np.uint8(grid.ignore_index)
        if self.ray_files is not None:
            points, classes = self._read_ray_files(scan, grid)
        else:
            what = f'LiDAR sweep of frame {scan["token"]}'
            remedy = f"check dataset.data_root, dataset.data_prefix['pts'] and LoadLidarRays.point_dims ({_HOW})"
            cloud = read_points(scan['lidar_path'], self.point_dims, what, remedy, self.backend_args)
            by_point = None if self.class_maps is not None else self._classes_of_points(scan, cloud, grid)
            points = project_points(cloud, scan['lidar2cam'], scan['cam2img'], sizes, self.min_depth)
            classes = None if by_point is None else by_point[points.point]
        if self.class_maps is not None:
            classes = self._read_class_maps(scan, points, sizes, grid)
        if classes is None:
            if self.point_classes != 'none':
                self._say(
                    'classes',
                    f'frame {scan["token"]} has no point classes (nuScenes-lidarseg is not in the annotation file), so its '
                    'LiDAR rays have depth alone and nothing supervises classes; this is said once',
                    logging.WARNING,
                )
            classes = np.full(len(points.depth), unknown)
        return points, classes

    def _classes_of_points(self, scan: dict, cloud: np.ndarray, grid: VoxelGrid) -> np.ndarray | None:
        if self.point_classes == 'files':
            path = scan['lidarseg_path']
            return read_point_classes(path, len(cloud), grid, self.backend_args) if path else None
        if self.point_classes == 'none':
            return None
        if grid.frame != 'lidar':
            raise ValueError(
                "LoadLidarRays(point_classes='voxels') takes classes from labels in the LiDAR frame, but the grid is in the "
                f"{grid.frame} frame; use 'files'"
            )
        labels, _ = read_label(
            scan['occ_path'], grid, f'label of frame {scan["token"]}', masks=(), backend_args=self.backend_args
        )
        index, inside = grid.point_to_index(cloud[:, :3])
        classes = np.full(len(cloud), grid.ignore_index, dtype=np.uint8)
        classes[inside] = labels[tuple(index[inside].T)]
        classes[classes == grid.free_index] = grid.ignore_index
        return classes

    def _read_ray_files(self, scan: dict, grid: VoxelGrid) -> tuple[PixelPoints, np.ndarray | None]:
        found, classes = [], []
        for camera, (name, path) in enumerate(zip(scan['cam_names'], scan['img_paths'], strict=True)):
            paths = [ray_file(self.ray_files[key], path) if key in self.ray_files else None for key in ('depth', 'classes')]
            what = f'{name}, frame {scan["token"]}'
            uv, depth, ids = read_ray_files(paths[0], paths[1], what, self.backend_args)
            found.append((np.full(len(uv), camera), uv, depth, np.arange(len(uv))))
            classes.append(None if ids is None else benchmark_classes(ids, grid, f"'{paths[1]}'"))
        points = PixelPoints(*(np.concatenate(parts) for parts in zip(*found)))
        return points, None if classes[0] is None else np.concatenate(classes)

    def _read_class_maps(self, scan: dict, points: PixelPoints, sizes: np.ndarray, grid: VoxelGrid) -> np.ndarray:
        classes = np.full(len(points.depth), grid.ignore_index, dtype=np.uint8)
        folder, pattern = self.class_maps['folder'], self.class_maps['pattern']
        for camera, (name, img_path) in enumerate(zip(scan['cam_names'], scan['img_paths'], strict=True)):
            path = image_file(folder, pattern, img_path, name, '')
            values = self.map_reader.load(path, f'class map of {name}, frame {scan["token"]}', sizes[camera])
            here = np.flatnonzero(points.camera == camera)
            column, row = np.trunc(points.uv[here]).astype(np.int64).T
            found = values[row, column]
            wrong = found >= grid.num_classes
            if wrong.any():
                raise ValueError(
                    f"class map of {name}, frame {scan['token']}: '{path}' holds the class {int(found[wrong][0])}; ids of the "
                    f'grid are 0..{grid.num_classes - 1}; set LoadLidarRays.class_maps.class_map'
                )
            # sky and the like: no point lies there, so its class is wrong
            classes[here] = np.where((found < 0) | (found == grid.free_index), grid.ignore_index, found)
        return classes

    def _log_weights(self, labels: np.ndarray, frame: np.ndarray, grid: VoxelGrid) -> np.ndarray:
        balance = np.zeros(grid.num_classes)
        if self.balance == 'data_set':
            counts = published_counts(grid) if self.class_counts is None else self.class_counts
            if len(counts) not in (grid.num_classes, grid.num_classes - 1):
                raise ValueError(
                    f'LoadLidarRays.class_counts has {len(counts)} numbers for {grid.num_classes} classes of the grid; '
                    'give one per class, 0 for the free one'
                )
            balance = log_class_balance(counts, self.smoothing)
        elif self.balance == 'sample':
            counts = np.bincount(labels, minlength=256)[: grid.num_classes]
            balance = log_class_balance(counts, self.smoothing)
        dynamic = dynamic_ids(grid) if self.dynamic_classes is None else self.dynamic_classes
        return log_ray_weights(labels, frame != 0, balance, dynamic, self.neighbour_weight, self.dynamic_weight)

    def _rays(self, parts: Sequence[tuple[dict, PixelPoints]], drawn: np.ndarray, results: dict) -> dict[str, np.ndarray]:
        """Geometry of the drawn rays alone."""
        columns: dict[str, list[np.ndarray]] = {}
        start = 0
        views = {
            (int(frame), name): view
            for view, (frame, name, missing) in enumerate(
                zip(results['frame'], results['cam_names'], results['view_missing'], strict=True)
            )
            if not missing
        }
        for scan, points in parts:
            first, last = np.searchsorted(drawn, [start, start + len(points.depth)])
            rows = drawn[first:last] - start
            start += len(points.depth)
            camera, uv = points.camera[rows], points.uv[rows]
            cam2ref = self._cam2ref(scan, results)
            through = uv if self.subpixel else np.trunc(uv) + 0.5
            origin, direction, depth_per_range = pixel_rays(through, camera, scan['cam2img'], cam2ref)
            view = np.array([views.get((int(scan['frame']), name), -1) for name in scan['cam_names']], dtype=np.int64)
            values = dict(
                origin=origin,
                direction=direction,
                depth_per_range=depth_per_range,
                depth=points.depth[rows],
                uv=through,
                view=view[camera],
                camera=_cameras_of(scan, results)[camera],
            )
            for key, value in values.items():
                columns.setdefault(key, []).append(value)
        joined = {key: np.concatenate(values) for key, values in columns.items()}
        return {key: value.astype(np.float32) if value.dtype.kind == 'f' else value for key, value in joined.items()}

    def _cam2ref(self, scan: dict, results: dict) -> np.ndarray:
        """(N, 4, 4) camera -> reference frame of the key frame."""
        cam2ref = scan['lidar2ref'] @ np.linalg.inv(scan['lidar2cam'])
        if self.key_ego == 'shared':
            return cam2ref
        if results['grid'].frame != 'ego' or 'cam2ego' not in results:
            raise ValueError(
                f"frame {results['token']}: LoadLidarRays(key_ego='per_camera') needs a grid in the ego frame and the mounting "
                "of the cameras (cam2ego); use 'shared', which is right"
            )
        views = _cameras_of(scan, results)
        return results['cam2ego'][views] @ np.asarray(results['ref2cam'])[views] @ cam2ref

    def _say(self, key: str, sentence: str, level: int) -> None:
        """Says something once in this process."""
        if key not in self._said:
            self._said.add(key)
            print_log(sentence, logger='current', level=level)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_rays={self.num_rays}, frames={self.frames}, balance={self.balance!r}, '
            f'neighbour_weight={self.neighbour_weight}, dynamic_weight={self.dynamic_weight}, '
            f'point_classes={self.point_classes!r}, ray_files={self.ray_files}, class_maps={self.class_maps})'
        )


def _cameras_of(scan: Mapping[str, Any], results: Mapping[str, Any]) -> np.ndarray:
    """(N,) position of a frame's cameras among those of the key frame, whose views come first."""
    names = list(results['cam_names'])
    return np.array([names.index(name) for name in scan['cam_names']], dtype=np.int64)
