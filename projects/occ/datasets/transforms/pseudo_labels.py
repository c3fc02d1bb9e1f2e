"""Class maps of images that a foundation model has painted, and how their ids become those of a benchmark."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.file_arrays import load_arrays, read_bytes
from projects.occ.image_files import ImageError, decode_values

IGNORE = -1
# Stored id 0..16 of GroundedSAM's maps (unused, sedan, highway, bus, truck, terrain, tree, sidewalk, bicycle, barrier, person,
# building, motorcycle, crane, trailer, cone, sky) -> class of Occ3D; sky is free.
GROUNDED_SAM_TO_OCC3D = (0, 4, 11, 3, 10, 14, 16, 13, 2, 1, 7, 15, 6, 5, 9, 8, 17)


def read_class_map(path: str, what: str, image_wh: Sequence[int], backend_args: dict | None = None) -> np.ndarray:
    """Stored ids of one image.

    Args:
        path: ``.bin``: int8, row by row (GroundedSAM's ``<image>_mask.bin``); ``.npy``: integers (H, W); anything else: a grey
            image.
        what: Name of the file in messages.
        image_wh: Width and height of the image that it belongs to, pixels.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (H, W) int16.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or has another size.
    """
    width, height = (int(n) for n in image_wh)
    remedy = "check dataset.data_prefix['pseudo']"
    data = read_bytes(path, what, remedy, backend_args)
    if path.endswith('.bin'):
        if len(data) != width * height:
            raise ValueError(f"{what}: '{path}' has {len(data)} bytes; expected {width} x {height}, one per pixel")
        return np.frombuffer(data, dtype=np.int8).reshape(height, width).astype(np.int16)
    if path.endswith('.npy'):
        values = load_arrays(path, what, remedy, backend_args).get('', np.zeros(0))
    else:
        try:
            values = decode_values(data)
        except ImageError as error:
            raise ValueError(f"{what}: '{path}' ({len(data)} bytes) is no image that can be read: {error}") from error
    if values.shape != (height, width) or values.dtype.kind not in 'iu':
        raise ValueError(
            f"{what}: '{path}': expected integer ids of shape {(height, width)}, as its image, found {values.dtype} "
            f'{values.shape}'
        )
    return values.astype(np.int16)


@TRANSFORMS.register_module()
class LoadPseudoLabels(BaseTransform):
    """Loads a class map per image of the key frame.

    Needs ``pseudo_paths``, one per image of the key frame, and ``ori_img_wh``; adds ``pseudo_labels``, a list of (H, W) int16
    arrays of class ids, -1 where there is none, at the size of the *original* images.

    Args:
        class_map: Class of every stored id, -1 for those to be left out; ``'grounded_sam'`` for GroundedSAM's ids and Occ3D's
            classes; None: the stored ids are the classes.
        ignore: Stored ids that mean no label at all; they become -1.
        unlabelled: Class of pixels without label, -1. The original made them free, because -1 is the last entry of its table.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        ValueError: If ``class_map`` is no list of ids.
    """

    def __init__(
        self,
        class_map: Sequence[int] | str | None = 'grounded_sam',
        ignore: Sequence[int] = (IGNORE,),
        unlabelled: int = IGNORE,
        backend_args: dict | None = None,
    ) -> None:
        if isinstance(class_map, str):
            if class_map != 'grounded_sam':
                raise ValueError(f"LoadPseudoLabels.class_map must be a list of ids, 'grounded_sam' or None, got {class_map!r}")
            class_map = GROUNDED_SAM_TO_OCC3D
        self.class_map = None if class_map is None else np.asarray(class_map, dtype=np.int16)
        if self.class_map is not None and (self.class_map.ndim != 1 or (self.class_map < IGNORE).any()):
            raise ValueError(f'LoadPseudoLabels.class_map must be a list of class ids and -1, got {class_map}')
        self.ignore = tuple(ignore)
        self.unlabelled = unlabelled
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Loads the maps.

        Raises:
            FileNotFoundError: If a map is missing.
            ValueError: If the data set names none, or one is damaged, has another size, or an id that the table does not know.
        """
        token = results['token']
        if not results.get('pseudo_paths'):
            raise ValueError(
                f'frame {token}: the data set names no class maps of its images (pseudo_paths), so LoadPseudoLabels has '
                "nothing to load; set data_prefix['pseudo'] of the data set"
            )
        views = zip(results['cam_names'], results['pseudo_paths'], results['ori_img_wh'])
        results['pseudo_labels'] = [self.load(path, f'class map of {name}, frame {token}', size) for name, path, size in views]
        return results

    def load(self, path: str, what: str, size: Sequence[int]) -> np.ndarray:
        """The (H, W) int16 class map of one image.

        Args:
            path: Its file.
            what: Named in errors.
            size: Width and height of the image, pixels.

        Raises:
            FileNotFoundError: If it is missing.
            ValueError: If it is damaged, has another size, or an id that the table does not know.
        """
        stored = read_class_map(path, what, size, self.backend_args)
        missing = np.isin(stored, self.ignore)
        if self.class_map is None:
            return np.where(missing, np.int16(self.unlabelled), stored)
        wrong = ~missing & ((stored < 0) | (stored >= len(self.class_map)))
        if wrong.any():
            raise ValueError(
                f"{what}: '{path}' holds the id {int(stored[wrong][0])}; LoadPseudoLabels.class_map knows "
                f'0..{len(self.class_map) - 1}'
            )
        return np.where(missing, np.int16(self.unlabelled), self.class_map[np.where(missing, 0, stored)])

    def __repr__(self) -> str:
        table = None if self.class_map is None else self.class_map.tolist()
        return f'{type(self).__name__}(class_map={table}, ignore={self.ignore}, unlabelled={self.unlabelled})'
