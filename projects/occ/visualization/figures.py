"""The pages that show one frame: cameras with overlaid voxels, the scene from above and behind, rendered maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .figure_layout import ColorBar, Panel, compose, resize, resize_nearest
from .palettes import ERROR_CLASSES, ERROR_FREE, ERROR_PALETTE, FREE_COLOR, error_volume
from .view_cameras import scale_image
from .voxel_painter import VoxelPainter

# how the six cameras of nuScenes stand around the car, row by row
SURROUND_LAYOUT = ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT')
OVERLAY_OPACITY = 0.6
COLUMNS = 3
DEPTH_DIFFERENCE = ColorBar('depth difference (m)', 'Reds', 0, 5)
MIN_DEPTH = 0.1  # metres; below it a rendered pixel shows nothing
ERROR_LEGEND = tuple(zip(ERROR_CLASSES, ERROR_PALETTE, strict=True))


@dataclass(frozen=True)
class CameraImages:
    """Camera images of one frame.

    Attributes:
        images: N images (H, W, 3) uint8 RGB.
        ref2img: (N, 4, 4), reference frame (metres) -> (u*d, v*d, d, 1) in the pixels of ``images``.
        names: N names.
    """

    images: Sequence[np.ndarray]
    ref2img: np.ndarray
    names: Sequence[str]

    def order(self) -> list[int]:
        """Indices as the cameras stand around the car, if they are nuScenes'."""
        if set(self.names) <= set(SURROUND_LAYOUT):
            return sorted(range(len(self.names)), key=lambda i: SURROUND_LAYOUT.index(self.names[i]))
        return list(range(len(self.names)))


@dataclass(frozen=True)
class RenderedMaps:
    """Maps of one frame rendered into its cameras and from above; arrays of a kind that was not rendered are None.

    Attributes:
        gt_classes: (N, H, W), or N arrays (H, W) of different sizes: class ids of the rendered label, or free.
        pred_classes: The same of the prediction.
        gt_depth: (N, H, W) metres, 0 where nothing is.
        pred_depth: The same of the prediction.
        gt_bev: (H', W') class ids from above; image x is +x of the grid, image up is +y.
        pred_bev: The same of the prediction.
        how: How they were rendered, for the title.
    """

    gt_classes: Sequence[np.ndarray] | None = None
    pred_classes: Sequence[np.ndarray] | None = None
    gt_depth: Sequence[np.ndarray] | None = None
    pred_depth: Sequence[np.ndarray] | None = None
    gt_bev: np.ndarray | None = None
    pred_bev: np.ndarray | None = None
    how: str = 'rendered'


def stack_views(views: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Maps (H, W) of N views as one array (N, H, W), or as a list where cameras have different sizes."""
    return np.stack(views) if len({view.shape for view in views}) == 1 else list(views)


def camera_figure(
    painter: VoxelPainter,
    cameras: CameraImages,
    volumes: dict[str, np.ndarray],
    panel_width: int = 640,
    title: str = '',
) -> np.ndarray:
    """Camera images, and below them the same with the voxels of every volume laid over.

    Args:
        painter: Draws the voxels.
        cameras: The images.
        volumes: Name -> (X, Y, Z) class ids, for example ground truth and prediction.
        panel_width: Width of one image on the page, pixels.
        title: Title of the page.

    Returns:
        The page, (H, W, 3) uint8.
    """
    order = cameras.order()
    blocks = {'': [resize(cameras.images[i], panel_width) for i in order]}
    for name, labels in volumes.items():
        blocks[name] = []
        for small, i in zip(blocks[''], order, strict=True):
            height, width = small.shape[:2]
            original_height, original_width = cameras.images[i].shape[:2]
            ref2img = scale_image(cameras.ref2img[i], width / original_width, height / original_height)
            blocks[name].append(painter.camera(labels, ref2img, width, height).over(small, OVERLAY_OPACITY))
    names = [cameras.names[i] for i in order]
    if len(order) < COLUMNS:
        # few cameras: one row each, image and overlays side by side
        rows = [
            [Panel(block[i], f'{names[i]}, {kind}' if kind else names[i]) for kind, block in blocks.items()]
            for i in range(len(order))
        ]
    else:
        rows = []
        for kind, block in blocks.items():
            panels = [Panel(image, f'{name}, {kind}' if kind else name) for name, image in zip(names, block, strict=True)]
            rows += [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    return compose(rows, painter.legend() if volumes else (), title=title)


def scene_figure(
    painter: VoxelPainter,
    gt: np.ndarray | None = None,
    pred: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    panel_width: int = 800,
    title: str = '',
    errors: str = 'errors',
) -> np.ndarray:
    """3D view and bird's-eye view of label, prediction and, if both are there, of the errors.

    Args:
        painter: Draws the voxels.
        gt: (X, Y, Z) true class ids or None.
        pred: (X, Y, Z) predicted class ids or None.
        mask: (X, Y, Z) bool, voxels whose errors are shown; None shows all.
        panel_width: Width of a view, pixels.
        title: Title of the page.
        errors: Title of the errors.

    Returns:
        The page, (H, W, 3) uint8.
    """
    width, height = panel_width, panel_width * 5 // 8
    scale = painter.fitting_scale(panel_width)
    views, maps = [], []
    for name, labels in (('ground truth', gt), ('prediction', pred)):
        if labels is not None:
            views.append(Panel(painter.overview(labels, width, height), name))
            maps.append(Panel(_centered(_with_vehicle(painter.bird_eye(labels, scale), painter, scale), width)))
    legend = painter.legend()
    if gt is not None and pred is not None:
        views.append(Panel(painter.error_overview(pred, gt, mask, width, height), errors))
        image = _with_vehicle(painter.error_bird_eye(pred, gt, mask, scale), painter, scale)
        maps.append(Panel(_centered(image, width)))
        legend += ERROR_LEGEND
    return compose([views, maps], legend, title=title)


def comparison_figure(
    painter: VoxelPainter,
    ref2img: np.ndarray,
    size: tuple[int, int],
    gt: np.ndarray | None = None,
    pred: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    title: str = '',
    errors: str = 'errors',
) -> np.ndarray:
    """Prediction, ground truth and errors side by side, seen by one camera; the pictures that sequences are made of.

    Args:
        painter: Draws the voxels.
        ref2img: (4, 4), reference frame (metres) -> (u*d, v*d, d, 1) in the pixels of one view.
        size: Width and height of one view, pixels.
        gt: (X, Y, Z) true class ids or None.
        pred: (X, Y, Z) predicted class ids or None.
        mask: (X, Y, Z) bool, voxels whose errors are shown; None shows all.
        title: Title of the page.
        errors: Title of the errors.

    Returns:
        The page, (H, W, 3) uint8; the same size for all titles.
    """
    views = [
        Panel(painter.camera(labels, ref2img, *size).over(FREE_COLOR), name)
        for name, labels in (('prediction', pred), ('ground truth', gt))
        if labels is not None
    ]
    legend = painter.legend()
    if len(views) == 2:
        views.append(Panel(painter.error_camera(pred, gt, mask, ref2img, *size).over(FREE_COLOR), errors))
        legend += ERROR_LEGEND
    return compose([views], legend, title=title or ' ')


def rendered_figure(
    painter: VoxelPainter,
    maps: RenderedMaps,
    cameras: CameraImages | None = None,
    names: Sequence[str] = (),
    panel_width: int = 400,
    title: str = '',
) -> np.ndarray:
    """Rendered classes and depths of every camera beside its image, with their differences; bird's-eye maps below.

    Args:
        painter: Gives the colours.
        maps: What was rendered.
        cameras: Images of the same cameras, in the same order.
        names: Names of the cameras without ``cameras``.
        panel_width: Width of one map on the page, pixels.
        title: Title of the page.

    Returns:
        The page, (H, W, 3) uint8.

    Raises:
        ValueError: If nothing was rendered.
    """
    stacks = [m for m in (maps.gt_classes, maps.pred_classes, maps.gt_depth, maps.pred_depth) if m is not None]
    bev = _bev_row(painter, maps, 2 * panel_width)
    if not stacks and not bev:
        raise ValueError('rendered_figure got no map; render the label or the prediction first')
    depth_bar = depth_scale(painter)
    count = len(stacks[0]) if stacks else 0
    names = cameras.names if cameras else names or [f'camera {i}' for i in range(count)]
    rows = []
    for i in cameras.order() if cameras else range(count):
        row = [Panel(resize(cameras.images[i], panel_width), names[i])] if cameras else []
        row += _class_panels(painter, *(None if m is None else m[i] for m in (maps.gt_classes, maps.pred_classes)), panel_width)
        row += _depth_panels(depth_bar, *(None if m is None else m[i] for m in (maps.gt_depth, maps.pred_depth)), panel_width)
        if not cameras:
            row[0] = Panel(row[0].image, f'{names[i]}: {row[0].title}')
        rows.append(row)
    legend = painter.legend()
    if maps.gt_classes is not None and maps.pred_classes is not None:
        legend += ERROR_LEGEND
    bars = []
    if maps.gt_depth is not None or maps.pred_depth is not None:
        bars.append(depth_bar)
    if maps.gt_depth is not None and maps.pred_depth is not None:
        bars.append(DEPTH_DIFFERENCE)
    return compose([*rows, bev], legend, bars, title=title or maps.how)


def depth_scale(painter: VoxelPainter) -> ColorBar:
    """Colours of depth: red is near, blue is at the far end of the grid."""
    grid = painter.grid
    return ColorBar('depth (m)', 'turbo_r', 0, max(abs(v) for v in (*grid.lower[:2], *grid.upper[:2])), gamma=0.5)


def paint_errors(pred: np.ndarray, gt: np.ndarray, painter: VoxelPainter) -> np.ndarray:
    """Colours (..., 3) uint8 of the errors of class maps (...)."""
    colors = np.array([*ERROR_PALETTE, FREE_COLOR], dtype=np.uint8)
    errors = error_volume(pred, gt, painter.grid.free_index, painter.grid.ignore_index)
    return colors[np.minimum(errors, ERROR_FREE)]


def _class_panels(painter: VoxelPainter, gt: np.ndarray | None, pred: np.ndarray | None, width: int) -> list[Panel]:
    panels = []
    for name, classes in (('ground truth', gt), ('prediction', pred)):
        if classes is not None:
            panels.append(Panel(_fit(painter.colorize(classes), width), name))
    if gt is not None and pred is not None:
        panels.append(Panel(_fit(paint_errors(pred, gt, painter), width), 'class errors'))
    return panels


def _depth_panels(bar: ColorBar, gt: np.ndarray | None, pred: np.ndarray | None, width: int) -> list[Panel]:
    panels = []
    for name, depth in (('ground truth depth', gt), ('predicted depth', pred)):
        if depth is not None:
            panels.append(Panel(_fit(bar.paint(depth, depth > MIN_DEPTH), width), name))
    if gt is not None and pred is not None:
        image = DEPTH_DIFFERENCE.paint(np.abs(pred - gt), gt > MIN_DEPTH)
        panels.append(Panel(_fit(image, width), 'depth difference'))
    return panels


def _bev_row(painter: VoxelPainter, maps: RenderedMaps, width: int) -> list[Panel]:
    """Rendered bird's-eye maps, turned so that ahead is up."""
    turned = [None if m is None else (np.rot90(m) if painter.ahead_axis == 0 else m) for m in (maps.gt_bev, maps.pred_bev)]
    panels = _class_panels(painter, *turned, width)
    return [Panel(panel.image, f"bird's eye, {panel.title}") for panel in panels]


def _with_vehicle(image: np.ndarray, painter: VoxelPainter, scale: int, size: float = 2.0, smooth: int = 4) -> np.ndarray:
    """Draws a triangle that points ahead at the origin of the grid's frame, ``size`` metres to each side."""
    column, row = painter.bird_eye_pixel((0.0, 0.0), scale)
    half = size / min(painter.grid.voxel_size[:2]) * scale
    corners = ((column, row - 1.3 * half), (column + 0.8 * half, row + half), (column - 0.8 * half, row + half))
    canvas = Image.fromarray(image.repeat(smooth, 0).repeat(smooth, 1))
    corners = [(x * smooth, y * smooth) for x, y in corners]
    ImageDraw.Draw(canvas).polygon(corners, fill='white', outline='black', width=2 * smooth)
    return np.asarray(canvas.reduce(smooth))


def _fit(image: np.ndarray, width: int) -> np.ndarray:
    """Shrinks smoothly, enlarges by whole pixels."""
    return resize(image, width) if width < image.shape[1] else resize_nearest(image, width)


def _centered(image: np.ndarray, width: int) -> np.ndarray:
    """The image in the middle of a white strip of this width."""
    missing = max(0, width - image.shape[1])
    return np.pad(image, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)), constant_values=255)
