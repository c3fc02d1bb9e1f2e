"""What transforms of the scene do to LiDAR files and to the rays made of them."""

import numpy as np


def move_measurements(results: dict, moved: np.ndarray, files: bool = True) -> None:
    """Takes ``lidar_frames`` and ``rays`` of a pipeline's dict to another reference frame, as far as they are there.

    Args:
        results: The dict.
        moved: (4, 4) float64, old reference frame -> new one, orthonormal; may mirror.
        files: Whether the LiDAR files move as well.
    """
    if files and 'lidar_frames' in results:
        results['lidar_frames'] = [dict(scan, lidar2ref=moved @ scan['lidar2ref']) for scan in results['lidar_frames']]
    if 'rays' in results:
        rays = results['rays']
        results['rays'] = dict(
            rays,
            origin=(rays['origin'] @ moved[:3, :3].T + moved[:3, 3]).astype(np.float32),
            direction=(rays['direction'] @ moved[:3, :3].T).astype(np.float32),
        )
