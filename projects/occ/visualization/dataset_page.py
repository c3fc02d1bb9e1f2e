"""What a data pipeline delivers, on two pages: its images with the label laid over, and its label with masks and counts."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .figure_layout import DPI, FONT, ColorBar, Panel, compose
from .figures import COLUMNS, CameraImages, camera_figure
from .palettes import IGNORED_COLOR
from .voxel_painter import VoxelPainter

SEEN = ColorBar('share of the voxels of a column in the mask', 'viridis', 0, 1)


def class_counts(labels: np.ndarray) -> np.ndarray:
    """(256,) int64, voxels of every id in a label volume."""
    return np.bincount(np.asarray(labels, dtype=np.uint8).ravel(), minlength=256)


def dataset_figures(
    painter: VoxelPainter,
    cameras: CameraImages | None,
    gt: np.ndarray | None,
    masks: dict[str, np.ndarray],
    title: str = '',
    panel_width: int = 560,
) -> dict[str, np.ndarray]:
    """The pages of one item.

    Args:
        painter: Knows the grid.
        cameras: The images that the network gets, with their projection.
        gt: (X, Y, Z) class ids, or None if no label was loaded.
        masks: Name -> (X, Y, Z) bool.
        title: Title of the pages.
        panel_width: Width of one image if there are three or more, pixels.

    Returns:
        ``input`` (images, overlay) and, with a label, ``label`` (3D, from above, masks, counts): (H, W, 3) uint8.
    """
    pages = {}
    if cameras is not None:
        # few cameras have room on the page
        width = panel_width if len(cameras.images) >= COLUMNS else panel_width * 3 // 2
        pages['input'] = camera_figure(painter, cameras, {} if gt is None else {'label': gt}, width, title)
    if gt is None:
        return pages
    scale = painter.fitting_scale(panel_width)
    above = painter.bird_eye(gt, scale)
    height = above.shape[0]
    rows = [[Panel(painter.overview(gt, height * 8 // 5, height), 'label'), Panel(above, 'from above')]]
    views = []
    for name, mask in masks.items():
        share = painter.lay_out(painter.enlarge(np.asarray(mask, dtype=bool).mean(-1), scale))
        views.append(Panel(SEEN.paint(share, np.ones_like(share, dtype=bool)), f'{name}: {np.mean(mask):.1%} of the voxels'))
    chart = Panel(_count_chart(painter, gt, panel_width * 8 // 5, max(height, 480)), 'voxels of each class')
    rows.append([*views, chart])
    pages['label'] = compose(rows, painter.legend(), [SEEN] if masks else (), title=title)
    return pages


def _count_chart(painter: VoxelPainter, gt: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bars of the number of voxels of every class, logarithmic, (height, width, 3) uint8."""
    grid, counts = painter.grid, class_counts(gt)
    bars = [(grid.class_names[c].replace('_', ' '), counts[c], painter.colors[c] / 255) for c in grid.semantic_classes]
    bars.append((f'{grid.class_names[grid.free_index]} (not drawn)', counts[grid.free_index], (1, 1, 1)))
    bars.append(('ignored', counts[grid.ignore_index], np.array(IGNORED_COLOR) / 255))
    figure = Figure(figsize=((width + 1e-3) / DPI, (height + 1e-3) / DPI), dpi=DPI, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.3, 0.02, 0.56, 0.96))
    names, values, colors = zip(*bars)
    axes.barh(range(len(bars)), values, color=colors, edgecolor='0.5', linewidth=0.5)
    axes.set_xscale('symlog', linthresh=1)
    axes.set_xlim(0, 2 * max(values))
    size = min(FONT, height / len(bars) * 0.42)
    for i, value in enumerate(values):
        axes.text(max(value, 1), i, f' {value:,}' if value else ' -', va='center', fontsize=size)
    axes.set_yticks(range(len(bars)), names, fontsize=size)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    for side in ('top', 'right', 'bottom'):
        axes.spines[side].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
