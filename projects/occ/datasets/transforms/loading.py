"""Reading images and occupancy labels from files."""

import io
import os

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get

from projects.occ.structures import VoxelGrid

_LAYOUT = 'docs/datasets.md, "Folders"'
# those of mmcv that give BGR and decode what the flag asks for
_DECODERS = ('cv2', 'pillow')


def _read_bytes(path: str, backend_args: dict | None, what: str, key: str) -> bytes:
    try:
        return get(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(
            f"{what}: '{path}' does not exist. The path is dataset.data_root + {key} + what the annotation file says; check "
            f'these config keys against {_LAYOUT}'
        ) from None


def is_complete(data: bytes) -> bool:
    """Whether image bytes have their end mark: decoders paint the lost part of a truncated file grey instead of failing."""
    for start, end in ((b'\xff\xd8', b'\xff\xd9'), (b'\x89PNG', b'IEND')):
        if data.startswith(start):
            return end in data[-1024:]
    return len(data) > 0


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Loads the images of all cameras of a frame.

    Needs ``img_paths`` and ``cam_names``; adds ``img`` (list of N (H, W, 3) arrays, BGR, 0..255), ``img_wh`` and
    ``ori_img_wh`` (N, 2) in pixels.

    Args:
        to_float32: Return float32 instead of uint8.
        backend_args: Arguments of mmengine's file backend.
        imdecode_backend: Decoder of mmcv, ``'cv2'`` or ``'pillow'``.

    Raises:
        ValueError: If the decoder is another.
    """

    def __init__(self, to_float32: bool = False, backend_args: dict | None = None, imdecode_backend: str = 'cv2') -> None:
        if imdecode_backend not in _DECODERS:
            raise ValueError(f'LoadMultiViewImages.imdecode_backend must be one of {_DECODERS}, got {imdecode_backend!r}')
        self.to_float32 = to_float32
        self.backend_args = backend_args
        self.imdecode_backend = imdecode_backend

    def transform(self, results: dict) -> dict:
        """Loads the images.

        Raises:
            FileNotFoundError: If an image is missing.
            ValueError: If an image is damaged or cut short.
        """
        images = []
        for name, path in zip(results['cam_names'], results['img_paths']):
            what = f'image of {name}, frame {results["token"]}'
            data = _read_bytes(path, self.backend_args, what, "dataset.data_prefix['img']")
            image = None
            if is_complete(data):
                image = mmcv.imfrombytes(data, flag='color_ignore_orientation', backend=self.imdecode_backend)
            if image is None:
                raise ValueError(
                    f"{what}: '{path}' ({len(data)} bytes) is not a complete image; copy it again from the data set "
                    f"(dataset.data_root + dataset.data_prefix['img'], {_LAYOUT})"
                )
            images.append(image.astype(np.float32) if self.to_float32 else image)
        results['img'] = images
        sizes = np.array([image.shape[1::-1] for image in images], dtype=np.float64)
        results['img_wh'] = sizes
        results['ori_img_wh'] = sizes.copy()
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(to_float32={self.to_float32}, imdecode_backend={self.imdecode_backend!r})'


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
            results.update(_dense_labels(arrays, grid, origin))
        else:
            results['gt_occ'] = _sparse_labels(arrays, grid, origin)
        return results


def _dense_labels(arrays: object, grid: VoxelGrid, origin: str) -> dict[str, np.ndarray]:
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


def _sparse_labels(rows: object, grid: VoxelGrid, origin: str) -> np.ndarray:
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
