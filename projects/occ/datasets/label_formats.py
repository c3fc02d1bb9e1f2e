"""Occupancy labels in the formats of the benchmarks, from the arrays of their files."""

import numpy as np

from projects.occ.structures import VoxelGrid


def dense_labels(arrays: object, grid: VoxelGrid, origin: str) -> dict[str, np.ndarray]:
    keys = ('semantics', 'mask_lidar', 'mask_camera')
    found = sorted(arrays) if isinstance(arrays, dict) else [f'one array {arrays.shape}']
    if any(key not in found for key in keys):
        raise ValueError(f'{origin}: expected the arrays {list(keys)} of an Occ3D label, found {found}')
    semantics = arrays['semantics']
    if not np.issubdtype(semantics.dtype, np.integer):
        raise ValueError(f'{origin}: expected integer class ids in semantics, found {semantics.dtype}')
    grid.check_labels(semantics, origin)
    labels = {'gt_occ': semantics.astype(np.uint8)}
    for key in keys[1:]:
        mask = arrays[key]
        if mask.shape != grid.shape:
            raise ValueError(f'{origin}: expected {key} of shape {grid.shape} (grid.shape), found {mask.shape}')
        # uint8 in the file; as an index numpy would take that for row numbers
        labels[key] = mask.astype(bool)
    return labels


def sparse_labels(rows: object, grid: VoxelGrid, origin: str) -> np.ndarray:
    if isinstance(rows, dict) or rows.ndim != 2 or rows.shape[1] != 4 or not np.issubdtype(rows.dtype, np.integer):
        found = f'an archive of {sorted(rows)}' if isinstance(rows, dict) else f'{rows.dtype} {rows.shape}'
        raise ValueError(f'{origin}: expected integers (K, 4) ix, iy, iz, class of a SurroundOcc label, found {found}')
    index, classes = rows[:, :3], rows[:, 3]
    outside = ((index < 0) | (index >= np.array(grid.shape))).any(1)
    if outside.any():
        raise ValueError(
            f'{origin}: voxel index {tuple(index[outside][0].tolist())} is outside grid.shape {grid.shape}; label and config '
            'describe different grids'
        )
    bad = (classes < 0) | (classes >= grid.num_classes)
    if bad.any():
        raise ValueError(
            f'{origin}: class id {int(classes[bad].max())} is outside 0..{grid.num_classes - 1}; check grid.class_names '
            'against the label files'
        )
    labels = np.full(grid.shape, grid.free_index, dtype=np.uint8)
    labels[tuple(index.T)] = np.where(classes == 0, grid.ignore_index, classes).astype(np.uint8)
    return labels
