"""``OccInferencer``: a trained occupancy network on images and cameras that belong to no data set."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import TRANSFORMS, VISUALIZERS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import init_default_scope
from torch import nn

from projects.occ.atomic_write import write_atomically
from projects.occ.engine.checkpoint import check_checkpoint_file, load_weights_strictly
from projects.occ.file_names import name_to_path
from projects.occ.structures import OccDataSample, VoxelGrid

from .camera_frames import CameraFrame, read_frames
from .frame_history import FrameHistory


class _Batches:
    """Collated batches with a known number, so that the progress bar can tell the time left."""

    def __init__(self, inferencer: 'OccInferencer', frames: Sequence[CameraFrame], batch_size: int) -> None:
        self.inferencer, self.frames, self.batch_size = inferencer, frames, batch_size

    def __len__(self) -> int:
        return -(-len(self.frames) // self.batch_size)

    def __iter__(self) -> Iterator[dict]:
        for start in range(0, len(self.frames), self.batch_size):
            items = [self.inferencer.pipeline(frame) for frame in self.frames[start : start + self.batch_size]]
            yield self.inferencer.collate_fn(items)


class OccInferencer(BaseInferencer):
    """Images, intrinsics and extrinsics to a voxel grid of classes, with any number of cameras that the model was built for.

    Example::

        inferencer = OccInferencer('configs/....py', 'checkpoint.pth')
        frame = dict(images=['front.jpg', ...], cam2img=..., cam2ref=...)
        labels = inferencer(frame)['predictions'][0]['pred_occ']     # (X, Y, Z) uint8
        inferencer('frames.json', out_dir='out', draw=True)

    Models that see earlier frames take the frames of a drive one after another, in one call or in many, and remember what they
    need (``history``); every frame says where the vehicle was (``ref2global``) and perhaps which drive it belongs to
    (``scene``). ``history.clear()`` starts a new drive.

    Images pass the test pipeline of the config without its loaders of labels, so they may have any size that the pipeline
    brings to the size of the network. Checkpoints load as in ``tools/test.py``: plain data alone, and every entry must fit.

    Args:
        model: Config file or config.
        weights: Checkpoint file. None leaves the weights random, with a warning.
        device: Device, for example ``'cuda:0'``; None takes a GPU if there is one.
        show_progress: Show a progress bar.

    Raises:
        CheckpointError: If the checkpoint cannot be loaded or does not fit.
        ValueError: If the config has no test pipeline, or the device cannot be used.
    """

    visualize_kwargs = {'draw'}
    postprocess_kwargs = {'out_dir'}

    def __init__(
        self,
        model: str | os.PathLike | Config,
        weights: str | os.PathLike | None = None,
        device: str | None = None,
        show_progress: bool = True,
    ) -> None:
        if device is not None:
            _check_device(device)
        cfg = model if isinstance(model, Config) else Config.fromfile(model)
        if weights is not None:
            check_checkpoint_file(weights)
            weights = os.fspath(weights)
        scope = cfg.get('default_scope') or 'mmdet3d'
        init_default_scope(scope)
        dataset = cfg.get('test_dataloader', {}).get('dataset', {})
        if 'grid' not in dataset or not dataset.get('pipeline'):
            raise ValueError(
                'the config has no test_dataloader.dataset with grid and pipeline, which tell how images are prepared'
            )
        self.grid = VoxelGrid.build(dataset['grid'])
        self.history = FrameHistory(dataset.get('frames') or (0,), self.grid.frame)
        super().__init__(cfg, weights, device, scope, show_progress)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: Mapping | None, cfg: Any) -> None:
        """Strict loading; without a checkpoint the weights stay random, with a warning."""
        if checkpoint is None:
            super()._load_weights_to_model(model, checkpoint, cfg)
            return
        load_weights_strictly(model, checkpoint)

    def _init_pipeline(self, cfg: Any) -> Any:
        steps = [TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline]
        # a loading transform says what it reads: labels are not there, and depth maps are given by hand
        reads = [getattr(step, 'reads', None) for step in steps]
        self.needs_depth = 'depth' in reads
        self._transforms = Compose([step for step, kind in zip(steps, reads) if kind not in ('label', 'depth')])
        return self._prepare

    def _init_collate(self, cfg: Any) -> Any:
        return pseudo_collate

    def _init_visualizer(self, cfg: Any) -> Any:
        settings = {'type': 'OccVisualizer', **cfg.get('visualizer', {}), 'vis_backends': None, 'grid': self.grid}
        # not built by the registry, which would hand out a visualiser that the process already has
        return VISUALIZERS.get(settings.pop('type'))(**settings)

    def _inputs_to_list(self, inputs: Any) -> list[CameraFrame]:
        """A JSON file, a frame or a list of frames, each a dict or a :class:`CameraFrame`."""
        if isinstance(inputs, (str, os.PathLike)):
            return read_frames(inputs)
        frames = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        return [item if isinstance(item, CameraFrame) else CameraFrame.parse(item, '', i) for i, item in enumerate(frames)]

    def preprocess(self, inputs: Sequence[CameraFrame], batch_size: int = 1) -> _Batches:
        """Checks the frames against the model and prepares them batch by batch.

        Raises:
            ValueError: If a frame has another number of cameras than the model, or lacks depth maps that it needs.
        """
        expected = getattr(getattr(self.model, 'view_encoder', None), 'num_cams', None)
        for frame in inputs:
            count = len(frame.images)
            if expected is not None and count != expected:
                raise ValueError(
                    f'frame {frame.token!r} has {count} cameras, but the model was built for {expected} '
                    '(model.view_encoder.num_cams); give the cameras in the order of training, or build the model for another '
                    'number of cameras where its weights allow that'
                )
            if self.needs_depth and frame.depth is None:
                raise ValueError(f'frame {frame.token!r} has no depth maps, which this model needs; add the key depth')
        return _Batches(self, inputs, batch_size)

    def _prepare(self, frame: CameraFrame) -> dict:
        """One frame, with the earlier ones that the model sees, through the test pipeline."""
        return self._transforms({**self.history.inputs(frame), 'grid': self.grid})

    @torch.no_grad()
    def forward(self, inputs: dict) -> list[OccDataSample]:
        """Predicts one batch; samples whose images are no files keep the network images for pictures."""
        images = inputs['inputs']['img']
        samples = self.model.test_step(inputs)
        for sample, image in zip(samples, images):
            if not sample.get('img_paths'):
                sample.set_field(image[: len(sample.cam_names)], 'network_images', field_type='data')
        return samples

    def visualize(self, inputs: Sequence, preds: Sequence[OccDataSample], draw: bool = False) -> list[dict[str, np.ndarray]]:
        """Pictures of every prediction.

        Args:
            inputs: The frames.
            preds: Their predictions.
            draw: Whether to draw at all.

        Returns:
            For each frame page name -> (H, W, 3) uint8 RGB (``cameras``, ``scene``), empty without ``draw``.
        """
        if not draw:
            return [{} for _ in preds]
        return [self.visualizer.figures(sample, sample.get('network_images'), title=sample.token) for sample in preds]

    def postprocess(
        self,
        preds: Sequence[OccDataSample],
        visualization: Sequence[dict[str, np.ndarray]],
        return_datasamples: bool = False,
        out_dir: str | os.PathLike | None = None,
    ) -> dict:
        """Packs the results and writes them.

        Args:
            preds: Predictions.
            visualization: Pictures.
            return_datasamples: Return the data samples instead of dicts.
            out_dir: Write ``<token>.npz`` (see :meth:`write`) and ``<token>_<page>.png`` to this folder.

        Returns:
            ``predictions``: for each frame a dict of ``token``, ``pred_occ`` (X, Y, Z) uint8 array and ``grid``
            (:class:`VoxelGrid`), or the data sample; ``visualization``: the pictures.
        """
        predictions = [
            dict(token=sample.token, pred_occ=sample.pred_occ.cpu().numpy().astype(np.uint8), grid=self.grid)
            for sample in preds
        ]
        if out_dir is not None:
            for sample, prediction, pages in zip(preds, predictions, visualization, strict=True):
                self.write(out_dir, sample, prediction['pred_occ'], pages)
        return dict(predictions=list(preds) if return_datasamples else predictions, visualization=list(visualization))

    def write(
        self, out_dir: str | os.PathLike, sample: OccDataSample, pred_occ: np.ndarray, pages: Mapping[str, np.ndarray]
    ) -> None:
        """Writes one frame.

        ``<token>.npz`` holds ``pred`` (X, Y, Z) uint8, what the grid is (``VoxelGrid.to_arrays``) and the cameras
        (``cam_names``, ``cam2img``, ``ref2cam``);
        ``tools/eval_predictions.py`` and ``tools/visualize.py --npz`` read it.

        Raises:
            ValueError: If the token is no relative path.
        """
        relative = name_to_path(sample.token)
        cameras = {key: np.asarray(sample.get(key)) for key in ('cam_names', 'cam2img', 'ref2cam')}
        arrays = {'pred': pred_occ, **self.grid.to_arrays(), **cameras}
        folder = Path(out_dir) / relative.parent
        write_atomically(folder / f'{relative.name}.npz', lambda file: np.savez_compressed(file, **arrays))
        if pages:
            from projects.occ.visualization.figure_layout import write_png

            for page, image in pages.items():
                write_png(folder / f'{relative.name}_{page}.png', image)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    # torch without CUDA asserts
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split('\n')[0]
        raise ValueError(
            f"device {device!r} cannot be used ({reason}); give 'cpu', or 'cuda' or 'cuda:<number>' of a GPU that torch finds"
        ) from error
