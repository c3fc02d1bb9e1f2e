"""Draws docs/images/conventions.png: frames, axes, pixels and grids. Run it after a change of the conventions.

python docs/images/make_conventions_drawing.py [--out FILE]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from projects.occ.structures.benchmarks import get_benchmark  # noqa: E402
from projects.occ.visualization.figure_layout import write_png  # noqa: E402

# length, width and height of the nuScenes car and its parts in the ego frame, metres
CAR_LENGTH, CAR_WIDTH, CAR_HEIGHT, REAR_OVERHANG, WHEELBASE, WHEEL = 4.08, 1.73, 1.56, 0.73, 2.59, 0.31
LIDAR = np.array([0.94, 0.0, 1.84])
CAMERA = np.array([1.70, 0.02, 1.51])
X, Y, Z = '#d62728', '#2ca02c', '#1f77b4'
DARK, CAR = '#333333', '#dfe3e8'
WHITE = dict(facecolor='white', edgecolor='none', pad=1.0, alpha=0.85)


def arrow(ax: Axes, start, step, color: str, name: str, shift=(0, 0)) -> None:
    """An axis arrow with its name at the tip."""
    end = np.add(start, step)
    ax.annotate('', end, start, arrowprops=dict(arrowstyle='-|>', color=color, lw=2.2, shrinkA=0, shrinkB=0), zorder=5)
    tip = end + 0.16 * np.asarray(step) / np.linalg.norm(step) + shift
    ax.text(*tip, name, color=color, ha='center', va='center', fontsize=12, weight='bold', zorder=6)


def out_of_page(ax: Axes, point, color: str, name: str, shift, radius: float = 0.09) -> None:
    """An axis that points at the reader."""
    ax.add_patch(Polygon(circle(point, radius), closed=True, facecolor='white', edgecolor=color, lw=2, zorder=6))
    ax.plot(*point, marker='.', color=color, zorder=7)
    ax.text(*np.add(point, shift), name, color=color, ha='center', va='center', fontsize=12, weight='bold', zorder=7)


def circle(center, radius: float) -> np.ndarray:
    """Points of a circle, (32, 2)."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.add(center, radius * np.stack([np.cos(angle), np.sin(angle)], 1))


def label(ax: Axes, point, text: str, **style) -> None:
    """Dark text on white."""
    ax.text(*point, text, **{**dict(color=DARK, fontsize=10.5, ha='center', va='center', bbox=WHITE, zorder=8), **style})


def finish(ax: Axes, title: str) -> None:
    """Equal scales, no ticks, a title."""
    ax.set_aspect('equal')
    ax.axis('off')
    ax.set_title(title, fontsize=13, weight='bold', pad=8)


def draw_from_above(ax: Axes) -> None:
    """nuScenes: ego, LiDAR and camera frame, ahead is up. The page is (-y, x) of the ego frame."""
    ax.add_patch(
        FancyBboxPatch(
            (-CAR_WIDTH / 2, -REAR_OVERHANG), CAR_WIDTH, CAR_LENGTH, boxstyle='round,pad=0,rounding_size=0.4', fc=CAR, ec='0.6'
        )
    )
    for x in (0, WHEELBASE):
        for side in (-1, 1):
            ax.add_patch(Rectangle((side * CAR_WIDTH / 2 - 0.1, x - WHEEL), 0.2, 2 * WHEEL, fc='0.45', ec='none', zorder=3))
    ax.plot([-CAR_WIDTH / 2, CAR_WIDTH / 2], [0, 0], color='0.45', lw=3, zorder=2)

    arrow(ax, (0, 0), (0, 0.62), X, 'x', (0.14, -0.12))
    arrow(ax, (0, 0), (-1.45, 0), Y, 'y')
    out_of_page(ax, (0, 0), Z, 'z', (0.2, 0.12))
    label(ax, (0.95, -0.42), 'ego: on the ground,\nbelow the rear axle', ha='left')

    lidar = np.array([0.0, LIDAR[0]])
    arrow(ax, lidar, (0.62, 0), X, 'x')
    arrow(ax, lidar, (0, 0.5), Y, 'y', (-0.16, -0.1))
    out_of_page(ax, lidar, Z, 'z', (-0.2, 0.0))
    label(ax, (1.0, LIDAR[0] + 0.02), 'LIDAR_TOP: 0.94 m ahead,\n1.84 m above the ego origin', ha='left')

    camera = np.array([0.0, CAMERA[0] + 0.25])
    half = np.tan(np.deg2rad(35))
    reach = 1.9
    ax.add_patch(
        Polygon([camera, camera + [-half * reach, reach], camera + [half * reach, reach]], fc='#fff3d6', ec='#e0a100', zorder=0)
    )
    arrow(ax, camera, (0.62, 0), X, 'x')
    arrow(ax, camera, (0, 1.1), Z, 'z')
    ax.add_patch(Polygon(circle(camera, 0.09), closed=True, facecolor='white', edgecolor=Y, lw=2, zorder=6))
    ax.plot(*camera, marker='x', color=Y, ms=6, mew=2, zorder=7)
    ax.text(camera[0] - 0.22, camera[1] + 0.05, 'y', color=Y, ha='center', va='center', fontsize=12, weight='bold', zorder=7)
    label(ax, (1.0, camera[1] + 0.02), 'camera: x right, y down,\nz along the optical axis', ha='left')
    label(ax, (0, 4.35), 'ahead', color='0.4', bbox=None)
    ax.set_xlim(-2.0, 3.6)
    ax.set_ylim(-1.1, 4.5)
    finish(ax, 'nuScenes car from above')


def draw_from_the_side(ax: Axes) -> None:
    """nuScenes: heights. The page is (x, z) of the ego frame."""
    front = CAR_LENGTH - REAR_OVERHANG
    outline = [
        (-REAR_OVERHANG, 0.35), (-REAR_OVERHANG, 1.0), (-0.45, 1.45), (0.2, CAR_HEIGHT), (1.3, CAR_HEIGHT - 0.04),
        (2.3, 1.0), (front - 0.1, 0.85), (front, 0.35),
    ]  # fmt: skip
    ax.add_patch(Polygon(outline, closed=True, fc=CAR, ec='0.6', joinstyle='round'))
    for x in (0, WHEELBASE):
        ax.add_patch(Polygon(circle((x, WHEEL), WHEEL), closed=True, fc='0.45', ec='none', zorder=2))
    ax.axhline(0, color='0.4', lw=1.5, zorder=0)

    arrow(ax, (0, 0), (1.1, 0), X, 'x')
    arrow(ax, (0, 0), (0, 0.9), Z, 'z', (0.14, -0.1))
    label(ax, (0.0, -0.28), 'ego origin')

    lidar = LIDAR[[0, 2]]
    arrow(ax, lidar, (0.75, 0), Y, 'y')
    arrow(ax, lidar, (0, 0.75), Z, 'z')
    label(ax, lidar + [-0.15, 0.25], 'LIDAR_TOP', ha='right')

    camera = CAMERA[[0, 2]]
    arrow(ax, camera, (0.95, 0), Z, 'z')
    arrow(ax, camera, (0, -0.75), Y, 'y')
    label(ax, camera + [0.55, -0.3], 'CAM_FRONT', ha='left')

    for x, height in ((-1.15, LIDAR[2]), (3.85, CAMERA[2])):
        ax.annotate('', (x, height), (x, 0), arrowprops=dict(arrowstyle='<->', color='0.4', lw=1))
        label(ax, (x, height / 2), f'{height:.2f} m', color='0.3')
    ax.plot([-1.15, lidar[0]], [LIDAR[2]] * 2, color='0.6', lw=0.8, ls=':')
    ax.plot([camera[0], 3.85], [CAMERA[2]] * 2, color='0.6', lw=0.8, ls=':')
    ax.set_xlim(-1.7, 4.4)
    ax.set_ylim(-0.6, 3.0)
    finish(ax, 'nuScenes car from the right')


def draw_pixels(ax: Axes) -> None:
    """Corner of an image with pixel centres. The page is (u, -v)."""
    for row in range(3):
        for column in range(4):
            ax.add_patch(Rectangle((column, -row - 1), 1, 1, fc='#f4f6f8' if (row + column) % 2 else 'white', ec='0.6'))
            ax.plot(column + 0.5, -row - 0.5, marker='o', color=DARK, ms=4)
    arrow(ax, (0, 0), (4.5, 0), X, 'u')
    arrow(ax, (0, 0), (0, -3.5), Y, 'v')
    label(ax, (0.55, 0.42), '(0, 0): corner of the image', bbox=None, ha='left')
    label(ax, (2.5, -1.78), '(2.5, 1.5)', fontsize=10)
    label(ax, (2.2, -3.95), 'centre of the pixel image[1, 2]\nin column 2 and row 1: (u, v) = (2.5, 1.5)', bbox=None)
    ax.annotate('', (2.5, -1.55), (2.3, -3.55), arrowprops=dict(arrowstyle='->', color='0.4', lw=1))
    ax.set_xlim(-0.7, 5.3)
    ax.set_ylim(-4.5, 0.9)
    finish(ax, 'image plane')


def draw_grid(ax: Axes, name: str, title: str) -> None:
    """Extent of a benchmark's grid from above, ahead is up, with index axes."""
    grid = get_benchmark(name).grid
    ahead = grid.ahead_axis
    (x0, y0, z0), (x1, y1, z1) = grid.lower, grid.upper

    def page(x: float, y: float) -> np.ndarray:
        return np.array([-y, x]) if ahead == 0 else np.array([x, y])

    corners = np.array([page(x0, y0), page(x1, y0), page(x1, y1), page(x0, y1)])
    low, high = corners.min(0), corners.max(0)
    size = high - low
    ax.add_patch(Polygon(corners, closed=True, fc='#f1f6fb', ec=DARK, lw=1.5))
    for i in range(1, 10):
        for axis in range(2):
            at = low[axis] + size[axis] * i / 10
            line = [(at, at), (low[1], high[1])] if axis == 0 else [(low[0], high[0]), (at, at)]
            ax.plot(*line, color='0.85', lw=0.7, zorder=1)
    unit = size.max()
    car = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * unit * [0.018, 0.045]
    behind = page(0, 0) - [0, 0.02 * unit] if name == 'sscbench-kitti360' else page(0, 0)
    ax.add_patch(Polygon(car + behind, closed=True, fc='0.55', ec='none', zorder=3))
    length = 0.2 * unit
    arrow_to(ax, page(0, 0), page(length, 0), X, 'x', unit)
    arrow_to(ax, page(0, 0), page(0, length), Y, 'y', unit)

    corner = page(x0, y0)
    ax.plot(*corner, marker='s', color=DARK, ms=9, zorder=6, clip_on=False)
    inward = np.sign(page((x0 + x1) / 2, (y0 + y1) / 2) - corner)
    label(ax, corner + inward * unit * [0.17, 0.06], 'voxel (0, 0, 0)', fontsize=10)
    step = 0.14 * unit
    for axis, color in ((0, X), (1, Y)):
        direction = page(*(np.eye(2)[axis])) - page(0, 0)
        outside = -inward * (1 - np.abs(direction)) * unit * 0.06
        start = corner + outside
        ax.annotate(
            '', start + direction * step, start, arrowprops=dict(arrowstyle='-|>', color=color, lw=1.6), annotation_clip=False
        )
        text = start + direction * step * 0.5 - inward * (1 - np.abs(direction)) * unit * 0.045
        ax.text(*text, f'i{"xy"[axis]}', color=color, fontsize=12, weight='bold', ha='center', va='center')
    forward = 'x ahead, y left' if ahead == 0 else 'x right, y ahead'
    frame = {'occ3d': 'ego frame', 'surroundocc': 'LIDAR_TOP frame', 'sscbench-kitti360': 'Velodyne frame'}[name]
    text = (
        f'{frame}: {forward}, z up\nx {x0:g} to {x1:g}, y {y0:g} to {y1:g}, z {z0:g} to {z1:g} m\n'
        f'{" x ".join(map(str, grid.shape))} voxels of {grid.voxel_size[0]:g} m; free = {grid.free_index}'
    )
    ax.text(low[0] + size[0] / 2, low[1] - 0.17 * unit, text, ha='center', va='top', fontsize=10.5, color=DARK)
    ax.set_xlim(low[0] - 0.17 * unit, high[0] + 0.17 * unit)
    ax.set_ylim(low[1] - 0.36 * unit, high[1] + 0.04 * unit)
    finish(ax, title)


def arrow_to(ax: Axes, start, end, color: str, name: str, unit: float) -> None:
    """Like :func:`arrow` in the scale of a grid."""
    ax.annotate('', end, start, arrowprops=dict(arrowstyle='-|>', color=color, lw=2.2, shrinkA=0, shrinkB=0), zorder=5)
    tip = end + (end - start) / np.linalg.norm(end - start) * 0.035 * unit
    ax.text(*tip, name, color=color, ha='center', va='center', fontsize=12, weight='bold', zorder=6)


def draw() -> np.ndarray:
    """The drawing, (H, W, 3) uint8."""
    figure = Figure(figsize=(16, 11.5), dpi=100, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3, gridspec_kw=dict(wspace=0.04, hspace=0.08, left=0.01, right=0.99, top=0.96, bottom=0.01))
    draw_from_above(axes[0, 0])
    draw_from_the_side(axes[0, 1])
    draw_pixels(axes[0, 2])
    draw_grid(axes[1, 0], 'occ3d', 'Occ3D-nuScenes')
    draw_grid(axes[1, 1], 'surroundocc', 'SurroundOcc-nuScenes')
    draw_grid(axes[1, 2], 'sscbench-kitti360', 'SSCBench-KITTI-360')
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def main() -> None:
    """Writes the drawing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('conventions.png'))
    write_png(parser.parse_args().out, draw())


if __name__ == '__main__':
    main()
