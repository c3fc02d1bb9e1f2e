"""Loading of occupancy labels."""

from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.occ.datasets.label_formats import read_label
from projects.occ.structures.masks import MASK_KEYS

_REMEDY = (
    "the path is dataset.data_root + dataset.data_prefix['occ'] + what the annotation file says; check these config keys "
    '(docs/datasets.md, "Folders"), copy the file again from the release, or make it with tools/create_data.py'
)


@TRANSFORMS.register_module()
class LoadOccLabels(BaseTransform):
    """Loads the occupancy label of a frame, in any of the formats of :mod:`projects.occ.datasets.label_formats`.

    Needs ``occ_path``, ``grid`` and ``token``; adds ``gt_occ`` (X, Y, Z) uint8, class ids or ``grid.ignore_index``, and the
    masks of ``.npz`` files, ``mask_lidar`` and ``mask_camera`` (X, Y, Z) bool.

    Args:
        masks: Masks that an ``.npz`` file must hold and that are loaded; ``()`` for none. None: those of the benchmark of the
            data set (``label_masks``), or where it belongs to none, those that the file has.
        backend_args: Arguments of mmengine's file backend.
    """

    reads = 'label'

    def __init__(self, masks: Sequence[str] | None = None, backend_args: dict | None = None) -> None:
        if masks is not None and not set(masks) <= set(MASK_KEYS):
            raise ValueError(f'{type(self).__name__}.masks must be among {MASK_KEYS}, got {tuple(masks)}')
        self.masks = None if masks is None else tuple(masks)
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Loads the label.

        Raises:
            FileNotFoundError: If the label is missing, or the annotation file does not say where it is.
            ValueError: If the file is damaged or does not fit ``grid``.
        """
        what = f'label of frame {results["token"]}'
        if not results['occ_path']:
            raise FileNotFoundError(
                f'{what}: the annotation file has neither scene_name nor occ_path, and the folder '
                "dataset.data_root + dataset.data_prefix['occ'] has no <scene>/<token> for it; correct the prefix or "
                'take an annotation file with scene names (docs/datasets.md, "Folders")'
            )
        required = results.get('label_masks', MASK_KEYS) if self.masks is None else self.masks
        options = dict(masks=required, backend_args=self.backend_args)
        labels, masks = read_label(results['occ_path'], results['grid'], what, _REMEDY, **options)
        results.update(masks, gt_occ=labels)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(masks={self.masks}, backend_args={self.backend_args})'


@TRANSFORMS.register_module()
class LoadSSCBenchLabels(LoadOccLabels):
    """Loads the label of a frame of SSCBench-KITTI-360: the converted ``<frame>_1_1.npy`` or the raw ``.label``.

    There are no masks: training and evaluation skip the voxels with ``grid.ignore_index``.

    Args:
        backend_args: Arguments of mmengine's file backend.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        super().__init__(masks=(), backend_args=backend_args)
