"""Depth maps of the images: read from files, or made from a LiDAR sweep."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.datasets.lidar_points import read_points
from projects.occ.file_arrays import load_arrays

_HOW = 'docs/datasets.md, "Depth maps"'


@TRANSFORMS.register_module()
class LoadDepthMaps(BaseTransform):
    """Loads one depth map per image.

    A map is a ``.npy`` file of (H, W) floats: z along the optical axis in metres, at the pixels of the image file; 0 where
    there is none. Published models use maps from stereo, made once for all frames.

    Needs ``depth_paths`` and the images of :class:`LoadMultiViewImages`, and comes before any transform that resizes them. Adds
    ``depth``, a list of V (H, W) float32 arrays.

    Args:
        backend_args: Arguments of mmengine's file backend.
    """

    reads = 'depth'

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Loads the maps.

        Raises:
            FileNotFoundError: If a map is missing.
            ValueError: If a map is damaged, has another size than its image, or values that are no depth.
        """
        if not results.get('depth_paths'):
            raise ValueError(
                f'frame {results["token"]}: the data set names no depth maps (depth_paths), so LoadDepthMaps has nothing to '
                'load; SSCBenchKITTI360Dataset names them'
            )
        views = zip(results['cam_names'], results['depth_paths'], results['img'])
        results['depth'] = [self._load(name, path, image, results['token']) for name, path, image in views]
        return results

    def _load(self, name: str, path: str, image: np.ndarray, token: str) -> np.ndarray:
        what = f"depth map of {name}, frame {token}: '{path}'"
        remedy = (
            "check dataset.data_root and dataset.data_prefix['depth']. Depth maps are made once from stereo images; where "
            f'there are none, LoadDepthFromLidar makes them from the LiDAR ({_HOW})'
        )
        arrays = load_arrays(path, f'depth map of {name}, frame {token}', remedy, self.backend_args)
        depth = arrays.get('')
        if depth is None or depth.dtype.kind != 'f' or depth.shape != image.shape[:2]:
            found = f'an archive of {sorted(arrays)}' if depth is None else f'{depth.dtype} {depth.shape}'
            raise ValueError(
                f'{what}: expected floats of the shape of the image, {image.shape[:2]}, found {found}; LoadDepthMaps comes '
                f'before the images are resized, and disparities that were padded have to be cut back ({_HOW})'
            )
        bad = ~np.isfinite(depth) | (depth < 0)
        if bad.any():
            raise ValueError(
                f'{what}: {bad.sum()} pixels are negative or not finite (the first is {depth[bad][0]}); depth is z in metres, '
                f'0 where there is none, so disparities of 0 have to be cut off before they are divided by ({_HOW})'
            )
        return depth.astype(np.float32)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'


@TRANSFORMS.register_module()
class LoadDepthFromLidar(BaseTransform):
    """Makes depth maps from the LiDAR sweep: a stand-in for maps from stereo, with other errors than these.

    Every point is projected into each image; a pixel takes the nearest of its points. A pixel without points takes the depth
    of the closest pixel with one, at most ``radius`` pixels away; what is left is 0. There is no depth above the LiDAR's field
    of view, and far walls may shine through near thin things.

    Views of neighbouring frames take the sweep of their own frame, or that of the key frame if it has none.

    Needs ``lidar_frames``, ``frame``, ``ref2cam``, ``cam2img`` and the images of :class:`LoadMultiViewImages`. Adds ``depth``,
    a list of V (H, W) float32 arrays, metres. Behind transforms that resize the images every point falls into the small image,
    where it competes for a pixel: the target of networks that predict depth. In front of them the maps are resized along, and
    points between the pixels that are left are lost.

    Args:
        radius: Pixels; 4 closes the gaps between the rings of KITTI's 64-ring LiDAR, 0 fills none.
        key_frame_only: Leave the maps of neighbouring frames empty.
        point_dims: Numbers per point in the file (little-endian float32), the first three x, y, z in the LiDAR frame.
        backend_args: Arguments of mmengine's file backend.
    """

    reads = 'depth'

    def __init__(
        self, radius: float = 4, key_frame_only: bool = False, point_dims: int = 4, backend_args: dict | None = None
    ) -> None:
        if radius < 0 or point_dims < 3:
            raise ValueError(
                f'LoadDepthFromLidar: radius must be >= 0 pixels and point_dims >= 3, got radius={radius}, '
                f'point_dims={point_dims}'
            )
        self.radius = radius
        self.key_frame_only = key_frame_only
        self.point_dims = point_dims
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Makes the maps.

        Raises:
            FileNotFoundError: If the sweep is missing.
            ValueError: If its file is cut short or has other points.
        """
        scans = {scan['frame']: scan for scan in results.get('lidar_frames', ())}
        if 0 not in scans:
            raise FileNotFoundError(
                f'frame {results["token"]}: the data set names no LiDAR sweep, so LoadDepthFromLidar has nothing to load; set '
                f"dataset.data_prefix['pts'] ({_HOW})"
            )
        clouds: dict[int, np.ndarray] = {}
        maps = []
        for view, (image, frame) in enumerate(zip(results['img'], results['frame'].tolist(), strict=True)):
            if self.key_frame_only and frame != 0:
                maps.append(np.zeros(image.shape[:2], dtype=np.float32))
                continue
            source = frame if frame in scans else 0
            if source not in clouds:
                lidar2ref = scans[source]['lidar2ref']
                points = self._points(scans[source]['lidar_path'], scans[source]['token'])
                clouds[source] = points @ lidar2ref[:3, :3].T + lidar2ref[:3, 3]
            intrinsics = results['cam2img'][view]
            if 'warp' in results:
                intrinsics = results['warp'][view] @ intrinsics
            maps.append(lidar_depth(clouds[source], results['ref2cam'][view], intrinsics, image.shape[1::-1], self.radius))
        results['depth'] = maps
        return results

    def _points(self, path: str, token: str) -> np.ndarray:
        what = f'LiDAR sweep of frame {token}'
        remedy = f"check dataset.data_root, dataset.data_prefix['pts'] and LoadDepthFromLidar.point_dims ({_HOW})"
        points = read_points(path, self.point_dims, what, remedy, self.backend_args)[:, :3].astype(np.float64)
        return points[np.isfinite(points).all(1)]

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(radius={self.radius}, key_frame_only={self.key_frame_only}, point_dims={self.point_dims})'
        )


def lidar_depth(
    points: np.ndarray, ref2cam: np.ndarray, cam2img: np.ndarray, image_wh: tuple[int, int], radius: float = 4
) -> np.ndarray:
    """Depth map of points, see :class:`LoadDepthFromLidar`.

    Args:
        points: (P, 3), metres, reference frame.
        ref2cam: (4, 4), reference frame -> camera (z forward).
        cam2img: (3, 3), pixels, pixel centres at +0.5.
        image_wh: Width and height, pixels.
        radius: How far holes are filled, pixels.

    Returns:
        (H, W) float32, metres, 0 = none.
    """
    width, height = image_wh
    camera = points @ ref2cam[:3, :3].T + ref2cam[:3, 3]
    camera = camera[camera[:, 2] > 0.1]
    pixels = camera @ np.asarray(cam2img, dtype=np.float64).T
    pixels = np.floor(pixels[:, :2] / pixels[:, 2:])
    inside = ((pixels >= 0) & (pixels < (width, height))).all(1)
    index = pixels[inside].astype(np.int64) @ np.array([1, width])
    depth = np.full(height * width, np.inf, dtype=np.float32)
    np.minimum.at(depth, index, camera[inside, 2].astype(np.float32))
    depth = depth.reshape(height, width)
    known = np.isfinite(depth)
    depth[~known] = 0
    if not known.any() or radius == 0:
        return depth
    distance, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # every known pixel is the source of one label
    values = np.zeros(nearest.max() + 1, dtype=np.float32)
    values[nearest[known]] = depth[known]
    return np.where(distance <= radius, values[nearest], np.float32(0))
