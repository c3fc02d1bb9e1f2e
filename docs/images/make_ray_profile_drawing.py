"""Draws docs/images/ray_profile.png: five predictions along one ray, with the numbers that ray_profile gives them.

python docs/images/make_ray_profile_drawing.py [--out FILE]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from projects.occ.evaluation.functional import ray_profile  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.visualization.figure_layout import write_png  # noqa: E402

CELLS, WALL, V = 28, 12, 0.5
FREE = 1
GRID = VoxelGrid((0, 0, 0, CELLS * V, V, V), V, (CELLS, 1, 1), 'ego', FREE, class_names=('wall', 'free'))
RAY = dict(origins=np.array([[0, V / 2, V / 2]]), directions=np.array([[1.0, 0, 0]]), reference=np.array([WALL * V]))
LABEL, GUESS, TOLERANCE = '#4d4d4d', '#4477aa', '#ddeedd'


def wall(*cells: int) -> np.ndarray:
    """Class ids with a wall in some cells."""
    labels = np.full(GRID.shape, FREE, dtype=np.uint8)
    labels[list(cells)] = 0
    return labels


def fog() -> np.ndarray:
    """Opacities that rise at the wall and end far behind it."""
    x = np.arange(CELLS)
    return (0.55 * np.exp(-(((x - WALL - 2) / 3.0) ** 2)))[:, None, None]


def cases() -> dict[str, np.ndarray]:
    """Predictions by their titles."""
    return {
        'right': wall(WALL),
        'twice as thick': wall(WALL, WALL + 1),
        'two voxels too far': wall(WALL + 2),
        'a copy of the wall behind it': wall(WALL, 2 * WALL),
        'smeared (opacity)': fog(),
    }


def draw_case(ax: Axes, title: str, prediction: np.ndarray) -> None:
    """Cells of label and prediction along the ray, and the numbers."""
    found = {name: values[0] for name, values in ray_profile(prediction, GRID, **RAY).items()}
    ax.add_patch(Rectangle((WALL * V - V, -0.1), 2 * V, 2.2, fc=TOLERANCE, ec='none', zorder=0))
    for cell in range(CELLS):
        value = prediction[cell, 0, 0]
        share = float(value == 0) if prediction.dtype == np.uint8 else float(value)
        ax.add_patch(Rectangle((cell * V, 1.1), V, 0.8, fc=LABEL if cell == WALL else 'white', ec='0.8', lw=0.6))
        ax.add_patch(Rectangle((cell * V, 0.1), V, 0.8, fc=GUESS, alpha=share, ec='none'))
        ax.add_patch(Rectangle((cell * V, 0.1), V, 0.8, fc='none', ec='0.8', lw=0.6))
    ax.axvline(WALL * V, color='#d62728', lw=1.2)
    units = dict(thickness=' m', spread=' m')
    text = '   '.join(f'{name} {value:.2f}{units.get(name, "")}' for name, value in found.items())
    ax.set_title(f'{title}:   {text}', loc='left', fontsize=10)
    ax.set_xlim(-1.6, CELLS * V)
    ax.set_ylim(-0.1, 2.1)
    ax.text(-0.15, 1.5, 'label', ha='right', va='center', fontsize=9)
    ax.text(-0.15, 0.5, 'prediction', ha='right', va='center', fontsize=9)
    ax.set_yticks([])
    for side in ('left', 'right', 'top', 'bottom'):
        ax.spines[side].set_visible(False)


def draw() -> np.ndarray:
    """The drawing, (H, W, 3) uint8."""
    figure = Figure(figsize=(11, 7), dpi=100, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(cases()), 1, sharex=True)
    for ax, (title, prediction) in zip(axes, cases().items()):
        draw_case(ax, title, prediction)
    axes[0].text(WALL * V, 2.02, ' d', color='#d62728', va='bottom', fontsize=10)
    axes[-1].set_xlabel(f'range along the ray, metres; shaded: d - v to d + v, v = {V} m')
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def main() -> None:
    """Writes the drawing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('ray_profile.png'))
    write_png(parser.parse_args().out, draw())


if __name__ == '__main__':
    main()
