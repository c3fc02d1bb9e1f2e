"""Colours and geometry of one benchmark, and the pictures of its label volumes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..structures import VoxelGrid
from .palettes import ERROR_CLASSES, ERROR_FREE, ERROR_PALETTE, FREE_COLOR, IGNORED_COLOR, error_volume, palette_for
from .view_cameras import overview_camera
from .voxel_drawing import VoxelView, draw_voxels

# bird's-eye views: a cell loses up to BEV_SHADE of its brightness if a neighbour stands BEV_STEPS voxels higher; next to free
# columns its outline keeps BEV_OUTLINE of it
BEV_SHADE, BEV_STEPS, BEV_OUTLINE = 0.4, 4, 0.65


class VoxelPainter:
    """Draws label volumes of one grid. Free space is never drawn.

    Args:
        grid: Voxel grid or its config dict.
        palette: (C, 3) RGB of every class, 0..255; None takes the benchmark's by the class names.
        hide_ignored: Leave voxels with ``grid.ignore_index`` out; False draws them grey.

    Raises:
        ValueError: If the palette has another number of classes.
    """

    def __init__(
        self, grid: VoxelGrid | Mapping[str, Any], palette: Sequence[Sequence[int]] | None = None, hide_ignored: bool = True
    ) -> None:
        self.grid = VoxelGrid.build(grid)
        classes = self.grid.num_classes
        palette = palette_for(self.grid.class_names, self.grid.free_index) if palette is None else np.asarray(palette, np.uint8)
        if palette.shape != (classes, 3):
            raise ValueError(f'palette must hold one RGB colour for each of {classes} classes, got shape {palette.shape}')
        self.colors = np.zeros((256, 3), dtype=np.uint8)
        self.colors[:classes] = palette
        self.colors[self.grid.free_index] = FREE_COLOR
        self.colors[self.grid.ignore_index] = IGNORED_COLOR
        self.drawn = np.zeros(256, dtype=bool)
        self.drawn[list(self.grid.semantic_classes)] = True
        self.drawn[self.grid.ignore_index] = not hide_ignored
        self.ahead_axis = self.grid.ahead_axis

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Name and colour of every class that can be drawn."""
        return [(self.grid.class_names[c], tuple(int(v) for v in self.colors[c])) for c in self.grid.semantic_classes]

    def camera(self, labels: np.ndarray, ref2img: np.ndarray, width: int, height: int, **style: Any) -> VoxelView:
        """Picture from a camera.

        Args:
            labels: (X, Y, Z) class ids.
            ref2img: (4, 4), reference frame -> (u*d, v*d, d, 1), pixels of a ``width`` x ``height`` image.
            width: Pixels.
            height: Pixels.
            **style: ``samples``, ``near``, ``shadow``, ``line`` of :func:`draw_voxels`.

        Raises:
            ValueError: If the labels do not fit the grid.
        """
        self.grid.check_labels(np.asarray(labels))
        return self._draw(labels, self.colors, self.drawn, self.grid.free_index, ref2img, width, height, style)

    def overview(self, labels: np.ndarray, width: int, height: int, **style: Any) -> np.ndarray:
        """3D view from behind and above on white, (height, width, 3) uint8; see :func:`overview_camera`."""
        return self.camera(labels, overview_camera(self.grid, width, height), width, height, **style).over(FREE_COLOR)

    def error_overview(self, pred: np.ndarray, gt: np.ndarray, mask: np.ndarray | None, width: int, height: int) -> np.ndarray:
        """3D view of the errors (``ERROR_CLASSES``) like :meth:`overview`; ``mask`` (X, Y, Z) bool limits what is judged."""
        return self.error_camera(pred, gt, mask, overview_camera(self.grid, width, height), width, height).over(FREE_COLOR)

    def error_camera(
        self,
        pred: np.ndarray,
        gt: np.ndarray,
        mask: np.ndarray | None,
        ref2img: np.ndarray,
        width: int,
        height: int,
        **style: Any,
    ) -> VoxelView:
        """The errors (``ERROR_CLASSES``) like :meth:`camera`; ``mask`` (X, Y, Z) bool limits what is judged."""
        colors, drawn = _error_style()
        return self._draw(self._errors(pred, gt, mask), colors, drawn, ERROR_FREE, ref2img, width, height, style)

    def bird_eye(self, labels: np.ndarray, scale: int = 4) -> np.ndarray:
        """Bird's-eye view: the topmost drawn voxel of every column, dark at the foot of higher ones; ahead is up, left is left.

        Args:
            labels: (X, Y, Z) class ids.
            scale: Pixels along the shorter horizontal edge of a voxel; the other one is drawn as much longer as it is.

        Returns:
            (pixels ahead, pixels across, 3) uint8.
        """
        self.grid.check_labels(np.asarray(labels))
        return self._bird_eye(labels, self.colors, self.drawn, scale)

    def error_bird_eye(self, pred: np.ndarray, gt: np.ndarray, mask: np.ndarray | None, scale: int = 4) -> np.ndarray:
        """Bird's-eye view of the errors, laid out like :meth:`bird_eye`: the gravest error of every column."""
        errors = self._errors(pred, gt, mask)
        # right voxels on top of wrong ones would hide them: show an error wherever a column has one
        order = np.array([1, 3, 4, 2, 0])  # rank of correct, wrong class, missed, not there, free
        gravest = np.argsort(order)[order[errors].max(-1)]
        colors, drawn = _error_style()
        return self._bird_eye(gravest[..., None].astype(np.uint8), colors, drawn, scale)

    def bird_eye_pixel(self, point: Sequence[float], scale: int) -> tuple[float, float]:
        """Column and row of a point (x, y), metres, in the pictures of :meth:`bird_eye`."""
        lower, upper = self.grid.lower, self.grid.upper
        per_metre = scale / min(self.grid.voxel_size[:2])
        if self.ahead_axis == 0:
            return (upper[1] - point[1]) * per_metre, (upper[0] - point[0]) * per_metre
        return (point[0] - lower[0]) * per_metre, (upper[1] - point[1]) * per_metre

    def fitting_scale(self, width: int) -> int:
        """The largest ``scale`` with which :meth:`bird_eye` is at most ``width`` pixels wide, at least 1."""
        across = self.grid.extent[1 - self.ahead_axis] / min(self.grid.voxel_size[:2])
        return max(1, int((width + 1e-6) // round(across, 6)))

    def enlarge(self, cells: np.ndarray, scale: int) -> np.ndarray:
        """Values (X, Y, ...) of columns as pixels, before :meth:`lay_out`, with as many pixels per metre along both axes."""
        for axis in (0, 1):
            cells = cells.repeat(np.diff(self._edges(axis, scale)), axis)
        return cells

    def lay_out(self, cells: np.ndarray) -> np.ndarray:
        """Values (X, Y, ...) of columns as they lie in the pictures of :meth:`bird_eye`: ahead is up, left is left."""
        return np.ascontiguousarray(cells[::-1, ::-1] if self.ahead_axis == 0 else cells.swapaxes(0, 1)[::-1])

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Colour image (..., 3) uint8 of an image of class ids; free is white."""
        return self.colors[np.asarray(labels, dtype=np.uint8)]

    def _errors(self, pred: np.ndarray, gt: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        self.grid.check_labels(np.asarray(gt), origin='ground truth')
        self.grid.check_labels(np.asarray(pred), origin='prediction')
        return error_volume(np.asarray(pred), np.asarray(gt), self.grid.free_index, self.grid.ignore_index, mask)

    def _draw(self, labels, colors, drawn, free, ref2img, width, height, style) -> VoxelView:
        lower, size = self.grid.lower, self.grid.voxel_size
        return draw_voxels(labels, colors, drawn, lower, size, ref2img, width, height, free_index=free, **style)

    def _edges(self, axis: int, scale: int) -> np.ndarray:
        """First pixel of every voxel along an axis, and the number of pixels."""
        size = self.grid.voxel_size
        return np.rint(np.arange(self.grid.shape[axis] + 1) * (scale * size[axis] / min(size[:2]))).astype(np.int64)

    def _bird_eye(self, labels: np.ndarray, colors: np.ndarray, drawn: np.ndarray, scale: int) -> np.ndarray:
        labels = np.asarray(labels, dtype=np.uint8)
        solid = drawn[labels]
        top = labels.shape[2] - 1 - solid[..., ::-1].argmax(-1)
        label = np.take_along_axis(labels, top[..., None], axis=-1)[..., 0]
        filled = solid.any(-1)
        height = np.where(filled, top, 0)
        step = np.max(_neighbors(height), axis=0) - height
        light = 1 - BEV_SHADE * np.clip(step, 0, BEV_STEPS) / BEV_STEPS
        image = np.where(filled[..., None], colors[label] * light[..., None], FREE_COLOR)
        image = self.enlarge(image, scale)
        if scale > 1:
            # bright classes would be lost on white without an outline
            for side, beside in enumerate(_neighbors(filled)):
                axis, last = divmod(side, 2)
                edges = self._edges(axis, scale)
                pixels = edges[1:] - 1 if last else edges[:-1]
                outlined = (filled & ~beside).repeat(np.diff(self._edges(1 - axis, scale)), 1 - axis)
                factor = np.where(outlined, BEV_OUTLINE, 1.0)[..., None]
                if axis == 0:
                    image[pixels] *= factor
                else:
                    image[:, pixels] *= factor
        return self.lay_out(np.rint(image).astype(np.uint8))


def _neighbors(cells: np.ndarray) -> np.ndarray:
    """Values (4, X, Y) of the neighbours at x - 1, x + 1, y - 1, y + 1; the border is its own neighbour."""
    padded = np.pad(cells, 1, mode='edge')
    return np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])


def _error_style() -> tuple[np.ndarray, np.ndarray]:
    colors, drawn = np.zeros((256, 3), dtype=np.uint8), np.zeros(256, dtype=bool)
    colors[: len(ERROR_PALETTE)] = ERROR_PALETTE
    drawn[: len(ERROR_CLASSES)] = True
    return colors, drawn
