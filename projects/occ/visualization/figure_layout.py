"""Panels of pixels, titles, legends and colour bars on one page, without resampling the panels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from projects.occ.atomic_write import write_atomically

DPI = 100
GAP = 10  # pixels between panels and around the page
TITLE = 30  # pixels above a panel that has a title
FONT = 14  # points; shrunk where a line has no room
LEGEND_FONTS, LEGEND_ROWS = (14, 11, 9), 5  # smaller letters if there would be more rows
FRAME = 205  # grey of the line around a panel
BAR = (420, 16, 40)  # length, thickness and room for the numbers of a colour bar, pixels

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """A picture (H, W, 3) uint8 and the line above it."""

    image: np.ndarray
    title: str = ''


@dataclass(frozen=True)
class ColorBar:
    """Meaning of a colour map: ``label`` with unit, values ``low`` to ``high``; ``gamma`` below 1 spreads low values."""

    label: str
    colormap: str
    low: float
    high: float
    gamma: float = 1.0

    @property
    def norm(self) -> PowerNorm:
        """Value -> 0..1."""
        return PowerNorm(self.gamma, self.low, self.high, clip=True)

    def paint(self, values: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Colours (..., 3) uint8 of values (...); white where ``shown`` is False."""
        colors = colormaps[self.colormap](self.norm(values), bytes=True)[..., :3]
        return np.where(np.asarray(shown)[..., None], colors, np.uint8(255))


def compose(
    rows: Sequence[Sequence[Panel]],
    legend: Sequence[tuple[str, Color]] = (),
    bars: Sequence[ColorBar] = (),
    title: str = '',
) -> np.ndarray:
    """Lays panels out in centred rows above colour bars and a legend.

    Args:
        rows: Panels of every row, from left to right.
        legend: Names and colours.
        bars: Colour bars, side by side.
        title: Line at the top of the page.

    Returns:
        The page, (H, W, 3) uint8.

    Raises:
        ValueError: If there is no panel.
    """
    rows = [list(row) for row in rows if row]
    if not rows:
        raise ValueError('compose needs at least one panel')
    widths = [sum(panel.image.shape[1] for panel in row) + GAP * (len(row) - 1) for row in rows]
    width = max(max(widths), BAR[0] * len(bars)) + 2 * GAP
    heights = [max(panel.image.shape[0] for panel in row) + (TITLE if any(p.title for p in row) else 0) for row in rows]

    figure = Figure(dpi=DPI, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    figure.set_size_inches(width / DPI, 1)
    legend_box, legend_height = _legend(figure, canvas, legend, width)
    height = 2 * GAP + sum(heights) + GAP * len(rows) + (TITLE + GAP if title else 0)
    height += (BAR[1] + BAR[2] + TITLE + GAP if bars else 0) + (legend_height + GAP if legend else 0)
    # a little more than the pixels needed: the canvas rounds down
    figure.set_size_inches((width + 1e-3) / DPI, (height + 1e-3) / DPI)

    def text(x: float, y_from_top: float, words: str, room: float, **style) -> None:
        line = figure.text(x / width, 1 - y_from_top / height, words, va='center', fontsize=FONT, **style)
        if (long := line.get_window_extent(canvas.get_renderer()).width) > room:
            line.set_fontsize(FONT * room / long)

    pictures = []
    top = GAP
    if title:
        text(width / 2, top + TITLE / 2, title, width - 2 * GAP, ha='center', weight='bold')
        top += TITLE + GAP
    for row, row_width, row_height in zip(rows, widths, heights, strict=True):
        left = (width - row_width) // 2
        titled = TITLE if any(panel.title for panel in row) else 0
        for panel in row:
            if panel.title:
                room = panel.image.shape[1]
                text(left + room / 2, top + TITLE / 2, panel.title, room, ha='center')
            pictures.append((left, top + titled, panel.image))
            left += panel.image.shape[1] + GAP
        top += row_height + GAP
    if bars:
        slot = width / len(bars)
        for i, bar in enumerate(bars):
            text(slot * (i + 0.5), top + TITLE / 2, bar.label, slot - GAP, ha='center')
            bottom = 1 - (top + TITLE + BAR[1]) / height
            axes = figure.add_axes(((slot * (i + 0.5) - BAR[0] / 2) / width, bottom, BAR[0] / width, BAR[1] / height))
            ticks = [tick for tick in MaxNLocator(5).tick_values(bar.low, bar.high) if bar.low <= tick <= bar.high]
            mappable = ScalarMappable(bar.norm, bar.colormap)
            figure.colorbar(mappable, cax=axes, orientation='horizontal', ticks=ticks)
            axes.minorticks_off()
            axes.tick_params(labelsize=FONT)
    if legend_box is not None:
        legend_box.set_bbox_to_anchor((0.5, GAP / height), figure.transFigure)

    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    for left, top, image in pictures:
        page[top - 1 : top + image.shape[0] + 1, left - 1 : left + image.shape[1] + 1] = FRAME
        page[top : top + image.shape[0], left : left + image.shape[1]] = image
    return page


def _legend(figure: Figure, canvas: FigureCanvasAgg, legend: Sequence[tuple[str, Color]], width: int):
    """Legend with as many columns as fit into the width, and its height in pixels."""
    handles = [
        Patch(facecolor=np.asarray(color) / 255, edgecolor='0.5', linewidth=0.5, label=name.replace('_', ' '))
        for name, color in legend
    ]
    # the fewest rows that fit, filled evenly; on narrow pages in smaller letters
    for size in LEGEND_FONTS:
        for lines in range(1, len(handles) + 1):
            columns = -(-len(handles) // lines)
            box = figure.legend(
                handles=handles, ncols=columns, loc='lower center', frameon=False, fontsize=size, borderpad=0, handlelength=1.2
            )
            extent = box.get_window_extent(canvas.get_renderer())
            fits = extent.width <= width - 2 * GAP or columns == 1
            if fits and (lines <= LEGEND_ROWS or size == LEGEND_FONTS[-1]):
                return box, int(np.ceil(extent.height))
            box.remove()
            if fits:
                break
    return None, 0


def resize(image: np.ndarray, width: int) -> np.ndarray:
    """Smaller or larger copy (h, width, 3) of an RGB image (H, W, 3) uint8 with the same aspect, smooth in both directions."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))


def resize_nearest(image: np.ndarray, width: int) -> np.ndarray:
    """Copy (h, width, ...) of class ids or values (H, W, ...) by nearest pixels: nothing is blended."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    rows = ((np.arange(height) + 0.5) * image.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * image.shape[1] / width).astype(int)
    return image[rows][:, columns]


def write_png(path: str | os.PathLike, image: np.ndarray) -> Path:
    """Writes an RGB image (H, W, 3) uint8 as PNG; the file appears complete or not at all.

    Returns:
        The path.
    """
    pixels = Image.fromarray(np.ascontiguousarray(image))
    write_atomically(path, lambda file: pixels.save(file, format='PNG'))
    return Path(path)
