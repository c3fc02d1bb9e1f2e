"""Reading occupancy labels from files."""

import io
import os

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.datasets.kitti360_labels import read_label
from projects.occ.datasets.label_formats import dense_labels, sparse_labels

from .loading import _LAYOUT, _read_bytes


@TRANSFORMS.register_module()
class LoadOccLabels(BaseTransform):
    """Loads the occupancy label of a frame; the file's suffix tells the benchmark.

    * ``.npz`` (Occ3D): ``semantics``, ``mask_lidar``, ``mask_camera``, all (X, Y, Z).
    * ``.npy`` (SurroundOcc): (K, 4) integers ix, iy, iz, class of the occupied voxels; class 0 there is unlabelled noise and
      becomes ``grid.ignore_index``, every voxel that is not listed is ``grid.free_index``.

    Needs ``occ_path``, ``grid`` and ``token``; adds ``gt_occ`` (X, Y, Z) uint8 and, for Occ3D, ``mask_lidar`` and
    ``mask_camera`` (X, Y, Z) bool.

    Args:
        backend_args: Arguments of mmengine's file backend.
    """

    reads = 'label'

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Loads the label.

        Raises:
            FileNotFoundError: If the label is missing, or the annotation file does not say where it is.
            ValueError: If the file is damaged or does not fit ``grid``.
        """
        path, grid = results['occ_path'], results['grid']
        what = f'label of frame {results["token"]}'
        if not path:
            raise FileNotFoundError(
                f'{what}: the annotation file has neither scene_name nor occ_path, and the folder '
                "dataset.data_root + dataset.data_prefix['occ'] has no <scene>/<token> for it; correct the prefix or "
                f'take an annotation file with scene names ({_LAYOUT})'
            )
        data = _read_bytes(path, self.backend_args, what, "dataset.data_prefix['occ']")
        try:
            loaded = np.load(io.BytesIO(data), allow_pickle=False)
            arrays = {key: loaded[key] for key in loaded} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
        except Exception as error:  # a damaged archive can raise nearly anything: zip, zlib, header and value errors
            raise ValueError(
                f"{what}: '{path}' ({len(data)} bytes) is damaged or cut short ({error}); copy it again from the "
                "benchmark's release"
            ) from error
        origin = f"{what}: '{path}'"
        if os.path.splitext(path)[1] == '.npz':
            results.update(dense_labels(arrays, grid, origin))
        else:
            results['gt_occ'] = sparse_labels(arrays, grid, origin)
        return results


@TRANSFORMS.register_module()
class LoadSSCBenchLabels(BaseTransform):
    """Loads the converted label ``<frame>_1_1.npy`` of a frame.

    Needs ``occ_path``, ``grid`` and ``token``; adds ``gt_occ`` (X, Y, Z) uint8, 0..18 or ``grid.ignore_index``. There are no
    masks: training and evaluation skip the ignored voxels.

    Args:
        backend_args: Arguments of mmengine's file backend.
    """

    reads = 'label'

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds ``gt_occ``; see :func:`read_label` for what it raises."""
        what = f'label of frame {results["token"]}'
        results['gt_occ'] = read_label(results['occ_path'], results['grid'], what, self.backend_args)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'
