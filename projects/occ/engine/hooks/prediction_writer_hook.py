"""Writes predictions to files that any evaluation script can read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook

from projects.occ.atomic_write import write_atomically
from projects.occ.file_names import name_to_path
from projects.occ.structures import VoxelGrid

from ..errors import OccError


@HOOKS.register_module()
class PredictionWriterHook(Hook):
    """Writes every test prediction to ``<out_dir>/<token>.npz``: key ``pred``, (X, Y, Z) uint8 class ids.

    The keys of ``VoxelGrid.to_arrays`` beside it tell the grid of the test set, as far as the test set tells it.

    Args:
        out_dir: Folder of the files. A token with slashes makes sub-folders.
        logits: Write the logits too, key ``logits``, (C, X, Y, Z) float16; the model must have ``keep_logits``.
    """

    priority = 'LOW'

    def __init__(self, out_dir: str, logits: bool = False) -> None:
        self.out_dir = Path(out_dir)
        self.logits = logits

    def after_test_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """Writes the predictions of one batch.

        Raises:
            OccError: If a sample has no ``pred_occ`` or no usable ``token``.
        """
        dataset = getattr(getattr(runner, 'test_dataloader', None), 'dataset', None)
        grid = (getattr(dataset, 'metainfo', None) or {}).get('grid')
        about = {} if grid is None else VoxelGrid.build(grid).to_arrays()
        for sample in outputs or ():
            if 'pred_occ' not in sample:
                raise OccError(f'--out needs data_sample.pred_occ, but the model returned {sorted(sample.keys())}')
            try:
                relative = name_to_path(sample.metainfo.get('token', ''))
            except ValueError as error:
                raise OccError(f'--out: {error}; the dataset must give every sample a "token"') from error
            arrays = dict(pred=sample.pred_occ.cpu().numpy().astype(np.uint8), **about)
            if self.logits:
                if 'pred_logits' not in sample:
                    raise OccError('--save-logits needs data_sample.pred_logits, but the model keeps none (model.keep_logits)')
                arrays['logits'] = sample.pred_logits.float().clamp(-6e4, 6e4).cpu().numpy().astype(np.float16)
            write_atomically(
                self.out_dir / relative.parent / f'{relative.name}.npz',
                lambda file, arrays=arrays: np.savez_compressed(file, **arrays),
            )
