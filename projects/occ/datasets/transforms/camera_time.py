"""The reference frame at the moment of a camera's image."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .measured import move_measurements


@TRANSFORMS.register_module()
class ReferenceAtCameraTime(BaseTransform):
    """Moves the reference frame to where the vehicle was when a camera of the key frame took its image.

    For weights of BEVDet and RenderOcc, whose volumes lie there. Labels stay: they are made at LiDAR time, so they then lie 0.2
    to 0.4 m beside the world in city traffic. Only for grids in the ego frame; comes before depth maps are made of LiDAR and
    before :class:`RandomMirrorGrid`.

    Changes ``ref2cam``, ``ref2img``, ``lidar_frames`` and ``rays``, as far as they are there. ``lidar2ego`` and ``ego2global``
    stay: they tell metrics where the labels lie.

    Args:
        camera: Name of the camera; None: the first one.
    """

    def __init__(self, camera: str | None = None) -> None:
        self.camera = camera

    def transform(self, results: dict) -> dict:
        """Moves the frame.

        Raises:
            ValueError: If the grid is not in the ego frame, there is no such camera, or its mounting is not known.
        """
        token, names = results.get('token', '?'), list(results['cam_names'])
        if results['grid'].frame != 'ego':
            raise ValueError("ReferenceAtCameraTime moves the ego frame, but the grid is in the frame 'lidar'; leave it out")
        if self.camera is not None and self.camera not in names:
            raise ValueError(
                f'frame {token} has no camera {self.camera!r}, which ReferenceAtCameraTime names; present: {names}'
            )
        if 'cam2ego' not in results:
            raise ValueError(
                f'frame {token}: the annotation file does not say where the cameras are mounted (cam2ego), which '
                'ReferenceAtCameraTime needs'
            )
        view = 0 if self.camera is None else names.index(self.camera)
        moved = results['cam2ego'][view] @ results['ref2cam'][view]
        back = np.linalg.inv(moved)
        for key in ('ref2cam', 'ref2img'):
            results[key] = np.asarray(results[key], dtype=np.float64) @ back
        move_measurements(results, moved)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(camera={self.camera!r})'
