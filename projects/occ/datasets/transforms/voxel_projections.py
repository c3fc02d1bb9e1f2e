"""Where the voxels appear in the images, computed once per calibration."""

import hashlib
import logging
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.logging import print_log

from projects.occ.atomic_write import write_atomically
from projects.occ.file_arrays import load_arrays
from projects.occ.structures import VoxelGrid, frustum_indices, network_intrinsics, project_voxel_centres, scaled_shape

# Part of every key: raise it when the same key has to give other tables.
_VERSION = 1
# Tables kept in memory by each worker, about 8 MB each for 256 x 256 x 32 voxels.
_KEPT = 32


@TRANSFORMS.register_module()
class LoadVoxelProjections(BaseTransform):
    """Projects the voxel centres into the images of the key frame.

    Needs ``ref2img``, ``ref2cam``, ``img_wh`` and ``grid``; comes after every transform of the images that changes their size.
    Adds, N being the views of the key frame (the first ones) and P the voxels of the grid at ``voxel_scale``, flattened with z
    fastest:

    * ``voxel_pixels`` (N, P, 2) int64, column and row in the network's image, rounded; meaningless where not visible.
    * ``voxel_visible`` (N, P) bool, the voxel's centre is inside the image and in front of the camera.
    * ``frustum_index`` (X, Y, Z) int16, at full resolution: which of the ``frustums`` x ``frustums`` boxes of the *first* image
      the voxel projects into, row by row, -1 for none; and ``frustums``, the number of boxes per side.

    Args:
        voxel_scale: Voxels of the first two are so many times as long as those of the grid.
        frustums: Boxes per side of the image; None for no ``frustum_index``.
        cache_dir: Folder for the tables, one file per calibration, image size, grid and scale, which all workers and later
            runs share; None keeps them in the memory of each worker only. A table takes about a second for 256 x 256 x 32
            voxels. Files that are damaged or of another version are made anew. With random resizing every item has tables of
            its own: leave it None then.
    """

    def __init__(self, voxel_scale: int = 2, frustums: int | None = 8, cache_dir: str | None = None) -> None:
        self.voxel_scale = voxel_scale
        self.frustums = frustums
        self.cache_dir = cache_dir
        self._tables: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()

    def transform(self, results: dict) -> dict:
        """Adds the tables.

        Raises:
            ValueError: If the scale does not divide the grid, or ``ref2img`` is not a camera's intrinsics times ``ref2cam``.
        """
        grid = results['grid']
        tables = []
        for view, (ref2img, ref2cam) in enumerate(zip(results['ref2img'], results['ref2cam'])):
            if results['frame'][view] != 0:
                continue
            cam2img = network_intrinsics(ref2img, ref2cam, results['cam2img'][view])
            image_wh = tuple(int(n) for n in results['img_wh'][view])
            tables.append(self._table(grid, ref2cam, cam2img, image_wh, self.frustums if view == 0 else None))
        results['voxel_pixels'] = np.stack([table['pixels'] for table in tables])
        results['voxel_visible'] = np.stack([table['visible'] for table in tables])
        if self.frustums is not None:
            # a copy, like the others: what happens to a sample must not reach the kept table
            results['frustum_index'] = tables[0]['frustums'].reshape(grid.shape).copy()
            results['frustums'] = self.frustums
        return results

    def _table(self, grid: VoxelGrid, ref2cam, cam2img, image_wh, frustums) -> dict[str, np.ndarray]:
        numbers = (grid.point_cloud_range, grid.voxel_size, grid.shape, image_wh, self.voxel_scale, frustums, _VERSION)
        key = hashlib.sha256(repr(numbers).encode())
        for matrix in (ref2cam, cam2img):
            key.update(np.ascontiguousarray(matrix, dtype='<f8').tobytes())
        key = key.hexdigest()[:32]
        if key in self._tables:
            self._tables.move_to_end(key)
            return self._tables[key]
        path = Path(self.cache_dir) / f'{key}.npz' if self.cache_dir else None
        voxels = int(np.prod(scaled_shape(grid, self.voxel_scale)))
        table = _read(path, voxels, grid.num_voxels if frustums else 0) if path is not None else None
        if table is None:
            table = _project(grid, ref2cam, cam2img, image_wh, self.voxel_scale, frustums)
            if path is not None:
                _write(path, table)
        self._tables[key] = table
        if len(self._tables) > _KEPT:
            self._tables.popitem(last=False)
        return table

    def __repr__(self) -> str:
        return f'{type(self).__name__}(voxel_scale={self.voxel_scale}, frustums={self.frustums}, cache_dir={self.cache_dir!r})'


def _project(grid, ref2cam, cam2img, image_wh, voxel_scale, frustums) -> dict[str, np.ndarray]:
    projection = project_voxel_centres(grid, ref2cam, cam2img, image_wh, voxel_scale)
    table = dict(pixels=projection.pixels, visible=projection.visible)
    if frustums is not None:
        full = projection if voxel_scale == 1 else project_voxel_centres(grid, ref2cam, cam2img, image_wh)
        table['frustums'] = frustum_indices(full, image_wh, frustums)
    return table


def _read(path: Path, voxels: int, boxed_voxels: int) -> dict[str, np.ndarray] | None:
    """Tables of a file; None if it is missing, damaged or holds other tables."""
    expected = dict(pixels=((voxels, 2), np.int64), visible=((voxels,), bool))
    if boxed_voxels:
        expected['frustums'] = ((boxed_voxels,), np.int16)
    try:
        table = load_arrays(path, 'voxel projections', 'they are made anew')
        found = {name: (array.shape, array.dtype) for name, array in table.items()}
        if all(found.get(name) == value for name, value in expected.items()):
            return {name: table[name] for name in expected}
        message = f"voxel projections: '{path}' holds {found} instead of {expected}; they are made anew"
    except OSError:
        return None
    except ValueError as error:
        message = str(error)
    print_log(message, logger='current', level=logging.WARNING)
    return None


def _write(path: Path, table: dict[str, np.ndarray]) -> None:
    try:
        write_atomically(path, lambda file: np.savez(file, **table))
    except OSError as error:
        print_log(
            f"voxel projections: '{os.fspath(path)}' cannot be written ({error}), so every worker computes them; give "
            'LoadVoxelProjections.cache_dir a folder that can be written to, or None',
            logger='current',
            level=logging.WARNING,
        )
