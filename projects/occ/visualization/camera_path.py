"""Where the camera of a sequence stands."""

from dataclasses import dataclass

import numpy as np

from ..structures import OccDataSample, VoxelGrid
from .view_cameras import overview_camera, project_matrix, scale_image

OVERVIEW = 'overview'
AZIMUTH = 20.0  # degrees, of the first picture


@dataclass(frozen=True)
class CameraPath:
    """The viewpoint of every picture of a sequence.

    Attributes:
        view: ``'overview'`` (behind and above the grid), or the name of a camera of the frames.
        turn: Degrees that the overview goes around the grid from one picture to the next; 0 stays behind the car.
        width: Width of a view, pixels.
    """

    view: str = OVERVIEW
    turn: float = 0.0
    width: int = 480

    def at(self, position: int, grid: VoxelGrid, sample: OccDataSample) -> tuple[np.ndarray, tuple[int, int]]:
        """The camera of one picture.

        Args:
            position: Number of the picture in the sequence.
            grid: The grid.
            sample: The frame, whose cameras can be the view.

        Returns:
            ref2img (4, 4) float64 and the size (width, height) of the view, pixels.

        Raises:
            ValueError: If the frame has no camera of that name.
        """
        if self.view == OVERVIEW:
            size = (self.width, self.width * 5 // 8)
            return overview_camera(grid, *size, azimuth=AZIMUTH + self.turn * position, turning=self.turn != 0), size
        names = list(sample.get('cam_names', ()))
        if self.view not in names:
            raise ValueError(f'the view of a video must be {OVERVIEW!r} or a camera of the frame {names}, got {self.view!r}')
        camera = names.index(self.view)
        width, height = (float(v) for v in sample.ori_img_wh[camera])
        size = (self.width, max(1, round(height * self.width / width)))
        ref2img = project_matrix(sample.ref2cam[camera], sample.cam2img[camera])
        return scale_image(ref2img, size[0] / width, size[1] / height), size
