"""Writes occupancy labels in the two on-disk formats of the nuScenes benchmarks."""

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.structures import VoxelGrid


def write_occ3d_label(path: str, semantics: np.ndarray, mask_lidar: np.ndarray, mask_camera: np.ndarray) -> None:
    """Writes ``labels.npz`` as Occ3D does: three (X, Y, Z) uint8 arrays, masks 0 or 1. Folders are made."""
    arrays = {'semantics': semantics, 'mask_lidar': mask_lidar, 'mask_camera': mask_camera}
    arrays = {key: np.asarray(value).astype(np.uint8) for key, value in arrays.items()}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def write_surroundocc_label(path: str, labels: np.ndarray, grid: VoxelGrid) -> None:
    """Writes ``<LiDAR file name>.npy`` as SurroundOcc does: (K, 4) int64 ix, iy, iz, class of all voxels that are not free.

    Args:
        path: File to write; folders are made.
        labels: (X, Y, Z) class ids, ``grid.ignore_index`` where unlabelled, which becomes class 0 of the file.
        grid: Its grid; class 0 must be the free one.
    """
    index = np.argwhere(labels != grid.free_index)
    classes = labels[tuple(index.T)].astype(np.int64)
    rows = np.concatenate([index, np.where(classes == grid.ignore_index, 0, classes)[:, None]], axis=1).astype(np.int64)
    write_atomically(path, lambda file: np.save(file, rows))
