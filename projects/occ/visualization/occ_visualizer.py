"""Pictures of occupancy samples for mmengine: files, TensorBoard, WandB."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import VISUALIZERS
from mmengine.dist import is_main_process
from mmengine.visualization import Visualizer

from projects.occ.image_files import ImageError, decode_image

from ..structures import OccDataSample, VoxelGrid
from ..structures.frame_record import size_problem
from ..structures.masks import MASK_FIELDS
from .camera_path import CameraPath
from .figure_layout import write_png
from .figures import CameraImages, RenderedMaps, camera_figure, comparison_figure, rendered_figure, scene_figure
from .ray_maps import cast_maps
from .view_cameras import project_matrix
from .voxel_painter import VoxelPainter

MAPS = ('none', 'rays')
PANEL_WIDTHS = {'cameras': 640, 'scene': 800, 'rendered': 400}


@VISUALIZERS.register_module()
class OccVisualizer(Visualizer):
    """Draws label and prediction of a frame: in the camera images, in 3D, from above, and as rendered maps.

    The pages of a frame are ``cameras`` (images with voxels laid over), ``scene`` (3D and bird's-eye views, errors) and, if
    maps are given, ``rendered``. They go to a file each or to the backends of mmengine. Nothing needs a display.

    Args:
        name: As in :class:`Visualizer`.
        grid: Voxel grid or its config dict; None takes ``dataset_meta['grid']``, which the test and validation loops set.
        palette: (C, 3) RGB, 0..255; None takes the fixed palette of the benchmark (``palettes.py``).
        mask: Voxels whose errors are drawn: ``'none'`` (all), ``'camera'``, ``'lidar'`` or ``'both'``. None: those that a
            camera sees if the sample says so, else all.
        hide_ignored: Leave ignored voxels out; False draws them grey.
        panel_widths: Width of one picture on the pages, pixels; replaces entries of ``PANEL_WIDTHS``.
        **kwargs: ``vis_backends``, ``save_dir`` of :class:`Visualizer`.

    Raises:
        ValueError: If ``mask`` or a page in ``panel_widths`` is unknown.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        grid: VoxelGrid | Mapping[str, Any] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        mask: str | None = None,
        hide_ignored: bool = True,
        panel_widths: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if mask is not None and mask not in MASK_FIELDS:
            raise ValueError(f'visualizer.mask must be one of {tuple(MASK_FIELDS)}, got {mask!r}')
        unknown = set(panel_widths or ()) - set(PANEL_WIDTHS)
        if unknown:
            raise ValueError(f'visualizer.panel_widths knows the pages {tuple(PANEL_WIDTHS)}, got also {sorted(unknown)}')
        self.mask = mask
        self.panel_widths = {**PANEL_WIDTHS, **(panel_widths or {})}
        self._style = dict(palette=palette, hide_ignored=hide_ignored)
        self._grid = grid
        self._painter: VoxelPainter | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set. mmengine sets it in the main process alone, but every process writes files."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._dataset_meta = dataset_meta

    @property
    def painter(self) -> VoxelPainter:
        """Draws the voxels of the grid.

        Raises:
            ValueError: If no grid is known.
        """
        grid = self._grid if self._grid is not None else (self.dataset_meta or {}).get('grid')
        if grid is None:
            raise ValueError('OccVisualizer knows no grid: set visualizer.grid=grid, or dataset_meta with a key grid')
        if self._painter is None or self._painter.grid != VoxelGrid.build(grid):
            self._painter = VoxelPainter(grid, **self._style)
        return self._painter

    def figures(
        self,
        data_sample: OccDataSample,
        images: Any = None,
        rendered: RenderedMaps | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        title: str = '',
    ) -> dict[str, np.ndarray]:
        """The pages of one frame.

        Args:
            data_sample: With ``gt_occ`` and/or ``pred_occ`` (X, Y, Z) and the cameras.
            images: Network images, (N, 3, H, W) tensor or array, BGR 0..255, that ``ref2img`` of the sample belongs to. None
                reads the original images of ``img_paths`` where they exist, which the exact ``ref2cam`` and ``cam2img``
                belong to.
            rendered: Maps of the original images.
            draw_gt: Draw the label, if there is one.
            draw_pred: Draw the prediction, if there is one.
            title: Title of the pages.

        Returns:
            Page name -> (H, W, 3) uint8 RGB.

        Raises:
            ValueError: If there is nothing to draw.
        """
        gt = _array(data_sample, 'gt_occ') if draw_gt else None
        pred = _array(data_sample, 'pred_occ') if draw_pred else None
        if gt is None and pred is None:
            raise ValueError('nothing to draw: the data sample has neither gt_occ nor pred_occ (or drawing them is off)')
        painter = self.painter
        volumes = {name: labels for name, labels in (('ground truth', gt), ('prediction', pred)) if labels is not None}
        pages = {}
        cameras = network_images(data_sample, images) if images is not None else original_images(data_sample)
        if cameras is not None:
            pages['cameras'] = camera_figure(painter, cameras, volumes, self.panel_widths['cameras'], title)
        mask, seen_by = self._mask(data_sample)
        pages['scene'] = scene_figure(painter, gt, pred, mask, self.panel_widths['scene'], title, f'errors{seen_by}')
        if rendered is not None:
            originals = original_images(data_sample)
            names = () if originals else data_sample.get('cam_names', ())
            words = ', '.join(part for part in (title, rendered.how) if part)
            pages['rendered'] = rendered_figure(painter, rendered, originals, names, self.panel_widths['rendered'], words)
        return pages

    def comparison(self, data_sample: OccDataSample, path: CameraPath, position: int = 0, title: str = '') -> np.ndarray:
        """Prediction, ground truth and errors side by side from one camera: a picture of a sequence.

        Args:
            data_sample: With ``gt_occ`` and/or ``pred_occ`` (X, Y, Z).
            path: Where the camera stands.
            position: Number of the picture on the path.
            title: Line above the picture.

        Returns:
            (H, W, 3) uint8 RGB, of the same size for all frames of a sequence.

        Raises:
            ValueError: If there is nothing to draw, or the frame lacks the camera of the path.
        """
        gt, pred = _array(data_sample, 'gt_occ'), _array(data_sample, 'pred_occ')
        if gt is None and pred is None:
            raise ValueError('nothing to draw: the data sample has neither gt_occ nor pred_occ')
        ref2img, size = path.at(position, self.painter.grid, data_sample)
        mask, seen_by = self._mask(data_sample)
        return comparison_figure(self.painter, ref2img, size, gt, pred, mask, title, f'errors{seen_by}')

    def add_datasample(
        self,
        name: str,
        images: Any = None,
        data_sample: OccDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | os.PathLike | None = None,
        step: int = 0,
        rendered: RenderedMaps | None = None,
        maps: str = 'none',
    ) -> None:
        """Draws a frame into files, or into the backends (in the main process alone).

        Args:
            name: Name of the frame in the backends and title of the pages.
            images: See :meth:`figures`.
            data_sample: See :meth:`figures`.
            draw_gt: Draw the label.
            draw_pred: Draw the prediction.
            show: Show the pages in windows too; needs a display.
            wait_time: Seconds a window stays; 0 until a key is pressed.
            out_file: Write the pages to ``<stem>_<page>.png`` beside this path instead of the backends.
            step: Step in the backends.
            rendered: See :meth:`figures`.
            maps: Without ``rendered``: ``'rays'`` draws maps of label and prediction too, by casting rays at the voxels, if the
                sample knows its cameras; ``'none'`` does not.

        Raises:
            ValueError: If there is nothing to draw or ``maps`` is unknown.
        """
        if data_sample is None:
            raise ValueError('add_datasample needs data_sample')
        if maps not in MAPS:
            raise ValueError(f'maps must be one of {MAPS}, got {maps!r}')
        if out_file is None and not is_main_process():
            return
        if rendered is None and maps == 'rays' and 'ref2cam' in data_sample:
            # twice the width on the page: shrinking smooths the edges
            kinds = [kind for kind, on in (('gt_occ', draw_gt), ('pred_occ', draw_pred)) if on and kind in data_sample]
            rendered = cast_maps(data_sample, self.painter, 2 * self.panel_widths['rendered'], kinds)
        for page, image in self.figures(data_sample, images, rendered, draw_gt, draw_pred, title=name).items():
            if show:
                self.show(image, win_name=f'{name} {page}', wait_time=wait_time)
            if out_file is None:
                self.add_image(f'{name}_{page}', image, step)
            else:
                write_png(Path(out_file).with_name(f'{Path(out_file).stem}_{page}.png'), image)

    def _mask(self, data_sample: OccDataSample) -> tuple[np.ndarray | None, str]:
        """Voxels whose errors are drawn, and the words for it."""
        kind = self.mask
        if kind is None:
            kind = 'none' if data_sample.get('mask_camera') is None else 'camera'
        mask = None
        for key in MASK_FIELDS[kind]:
            field = _array(data_sample, key)
            if field is None:
                raise ValueError(f"visualizer.mask={kind!r} needs {key} in the data sample; set visualizer.mask='none'")
            mask = field != 0 if mask is None else mask & (field != 0)
        words = {'none': '', 'both': ', seen by cameras and LiDAR', 'lidar': ', seen by LiDAR', 'camera': ', seen by cameras'}
        return mask, words[kind]


def original_images(data_sample: OccDataSample) -> CameraImages | None:
    """Original images of a sample with their exact projection, or None if a file does not exist.

    Raises:
        ValueError: If a file cannot be read, or has another size than the sample's intrinsics are for.
    """
    paths = data_sample.get('img_paths')
    if not paths or not all(os.path.isfile(path) for path in paths):
        return None
    images = []
    sizes = data_sample.get('ori_img_wh')
    for view, path in enumerate(paths):
        try:
            images.append(decode_image(Path(path).read_bytes())[..., ::-1])
        except ImageError as error:
            raise ValueError(f'image {path!r} cannot be drawn: {error}') from error
        expected = None if sizes is None else np.rint(np.asarray(sizes[view]))
        problem = size_problem(np.asarray(data_sample.cam2img[view]), images[-1].shape[1::-1], expected)
        if problem and expected is not None:
            raise ValueError(f'image {path!r} of sample {data_sample.get("token", "?")} {problem}')
    return CameraImages(images, project_matrix(data_sample.ref2cam, data_sample.cam2img), _names(data_sample, len(images)))


def network_images(data_sample: OccDataSample, images: Any) -> CameraImages:
    """Network images (N, 3, H, W), BGR 0..255, with ``ref2img`` of their sample.

    Raises:
        ValueError: If shape or number of the images does not fit.
    """
    array = images.detach().cpu().numpy() if hasattr(images, 'detach') else np.asarray(images)
    matrices = np.asarray(data_sample.ref2img)
    if array.ndim != 4 or array.shape[1] != 3 or len(array) != len(matrices):
        raise ValueError(f'images must be ({len(matrices)}, 3, H, W), one for each ref2img, got shape {array.shape}')
    rgb = np.clip(array[:, ::-1].transpose(0, 2, 3, 1), 0, 255).astype(np.uint8)
    return CameraImages(list(rgb), matrices, _names(data_sample, len(rgb)))


def _names(data_sample: OccDataSample, count: int) -> list[str]:
    return list(data_sample.get('cam_names', [f'camera {i}' for i in range(count)]))


def _array(data_sample: OccDataSample, key: str) -> np.ndarray | None:
    field = data_sample.get(key)
    return field.detach().cpu().numpy() if hasattr(field, 'detach') else field
