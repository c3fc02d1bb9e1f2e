"""Pictures of label volumes from any pinhole camera, by casting rays on the CPU; no window, no GL.

Every pixel's ray walks through the grid (3D-DDA) to the first voxel that is drawn. Pixels where neighbouring rays hit different
voxel faces are sampled several times, which removes jagged edges at little cost. Faces are shaded by their normal and by how
many neighbouring voxels shut out the sky; thin lines mark voxel borders and fade with distance.
"""

from dataclasses import dataclass

import numba
import numpy as np

# brightness of the faces with normals -x, +x, -y, +y, -z, +z
FACE_LIGHT = np.array([0.80, 0.88, 0.70, 0.76, 0.50, 1.00])
LINE_WIDTH = 0.03  # half width of border lines, in voxel edges
MISS = -1


@dataclass(frozen=True)
class VoxelView:
    """Picture of a label volume.

    Attributes:
        rgba: (H, W, 4) uint8, straight alpha; alpha 0 where no voxel is hit, in between on silhouettes.
        labels: (H, W) uint8, label at the pixel centre; the free id where nothing is hit.
        depth: (H, W) float32, camera z of the hit at the pixel centre in metres; 0 where nothing is hit.
    """

    rgba: np.ndarray
    labels: np.ndarray
    depth: np.ndarray

    def over(self, background: np.ndarray, opacity: float = 1.0) -> np.ndarray:
        """Lays the picture over a background.

        Args:
            background: (H, W, 3) uint8 or one colour (3,).
            opacity: Opacity of the voxels, 0..1.

        Returns:
            (H, W, 3) uint8.
        """
        alpha = self.rgba[..., 3:].astype(np.float32) * (opacity / 255)
        blend = self.rgba[..., :3] * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)
        return np.rint(blend).astype(np.uint8)


@numba.njit(cache=True)
def _clip(origin, direction, size, t_in, t_out):
    """Part of a ray inside 0..size on one axis; second value False if it was not cut at the start."""
    if direction == 0.0:
        return (t_in, False, t_out) if 0 <= origin < size else (np.inf, False, -np.inf)
    a, b = -origin / direction, (size - origin) / direction
    if a > b:
        a, b = b, a
    return max(a, t_in), a > t_in, min(b, t_out)


@numba.njit(cache=True)
def _axis_start(origin, direction, t, size):
    """Cell at ``t``, step, t of the next border and t between borders on one axis."""
    cell = min(max(int(np.floor(origin + t * direction)), 0), size - 1)
    if direction > 0:
        return cell, 1, (cell + 1 - origin) / direction, 1 / direction
    if direction < 0:
        return cell, -1, (cell - origin) / direction, -1 / direction
    return cell, 0, np.inf, np.inf


@numba.njit(cache=True)
def _first_hit(solid, ox, oy, oz, dx, dy, dz, near):
    """First solid voxel on ``o + t * d`` (voxel units). Returns x, y, z, face, t; x is MISS without a hit."""
    nx, ny, nz = solid.shape
    t, cut_x, t_out = _clip(ox, dx, nx, near, np.inf)
    t, cut_y, t_out = _clip(oy, dy, ny, t, t_out)
    t, cut_z, t_out = _clip(oz, dz, nz, t, t_out)
    if t >= t_out:
        return MISS, 0, 0, 0, 0.0
    x, step_x, next_x, delta_x = _axis_start(ox, dx, t, nx)
    y, step_y, next_y, delta_y = _axis_start(oy, dy, t, ny)
    z, step_z, next_z, delta_z = _axis_start(oz, dz, t, nz)
    # a camera inside the grid: the voxel that holds it would hide everything
    axis = 2 if cut_z else (1 if cut_y else (0 if cut_x else -1))
    while True:
        if axis >= 0 and solid[x, y, z]:
            backwards = step_x if axis == 0 else (step_y if axis == 1 else step_z)
            return x, y, z, 2 * axis + (0 if backwards > 0 else 1), t
        if next_x <= next_y and next_x <= next_z:
            axis, t = 0, next_x
            x += step_x
            if x < 0 or x >= nx:
                break
            next_x += delta_x
        elif next_y <= next_z:
            axis, t = 1, next_y
            y += step_y
            if y < 0 or y >= ny:
                break
            next_y += delta_y
        else:
            axis, t = 2, next_z
            z += step_z
            if z < 0 or z >= nz:
                break
            next_z += delta_z
    return MISS, 0, 0, 0, 0.0


@numba.njit(cache=True)
def _wall(solid, x, y, z):
    inside = 0 <= x < solid.shape[0] and 0 <= y < solid.shape[1] and 0 <= z < solid.shape[2]
    return 1 if inside and solid[x, y, z] else 0


@numba.njit(cache=True)
def _corner_walls(side, other, corner):
    """How much of the sky neighbours hide from a corner, 0..1."""
    return 1.0 if side and other else (side + other + corner) / 3


@numba.njit(cache=True)
def _brightness(solid, x, y, z, face, a, b, light, shadow, line, voxel_pixels):
    """Brightness at (a, b) on a face, 0..1 along the next two axes: normal, neighbours in front of the face, border line."""
    axis = face // 2
    fx, fy, fz = int(axis == 0), int(axis == 1), int(axis == 2)
    out = 1 if face % 2 else -1
    x, y, z = x + fx * out, y + fy * out, z + fz * out
    # unit steps along the two axes of the face: (axis + 1) % 3 and (axis + 2) % 3
    ax, ay, az = fz, fx, fy
    bx, by, bz = fy, fz, fx
    left, right = _wall(solid, x - ax, y - ay, z - az), _wall(solid, x + ax, y + ay, z + az)
    below, above = _wall(solid, x - bx, y - by, z - bz), _wall(solid, x + bx, y + by, z + bz)
    hidden = (
        (1 - a) * (1 - b) * _corner_walls(left, below, _wall(solid, x - ax - bx, y - ay - by, z - az - bz))
        + (1 - a) * b * _corner_walls(left, above, _wall(solid, x - ax + bx, y - ay + by, z - az + bz))
        + a * (1 - b) * _corner_walls(right, below, _wall(solid, x + ax - bx, y + ay - by, z + az - bz))
        + a * b * _corner_walls(right, above, _wall(solid, x + ax + bx, y + ay + by, z + az + bz))
    )
    edge = min(min(a, 1 - a), min(b, 1 - b))
    covered = min(max((LINE_WIDTH - edge) * voxel_pixels + 0.5, 0.0), 1.0) * min(1.0, 2 * LINE_WIDTH * voxel_pixels)
    return light[face] * (1 - shadow * hidden) * (1 - line * covered)


@numba.njit(cache=True)
def _sample(solid, origin, m, near, u, v, light, shadow, line, pixel_size):
    """One ray: the hit voxel and face as one number (MISS without), its depth and its brightness."""
    dx = m[0, 0] * u + m[0, 1] * v + m[0, 2]
    dy = m[1, 0] * u + m[1, 1] * v + m[1, 2]
    dz = m[2, 0] * u + m[2, 1] * v + m[2, 2]
    x, y, z, face, t = _first_hit(solid, origin[0], origin[1], origin[2], dx, dy, dz, near)
    if x == MISS:
        return MISS, 0.0, 0.0
    px, py, pz = origin[0] + t * dx - x, origin[1] + t * dy - y, origin[2] + t * dz - z
    if face // 2 == 0:
        a, b = py, pz
    elif face // 2 == 1:
        a, b = pz, px
    else:
        a, b = px, py
    a, b = min(max(a, 0.0), 1.0), min(max(b, 0.0), 1.0)
    bright = _brightness(solid, x, y, z, face, a, b, light, shadow, line, 1.0 / (t * pixel_size))
    return ((x * solid.shape[1] + y) * solid.shape[2] + z) * 6 + face, t, bright


@numba.njit(cache=True, parallel=True)
def _cast(labels, solid, colors, origin, m, near, height, width, samples, light, shadow, line, pixel_size, free):
    """Premultiplied RGBA 0..255, label and depth images."""
    flat = labels.ravel()
    image = np.zeros((height, width, 4), np.float32)
    hits = np.empty((height, width), np.int64)
    depth = np.zeros((height, width), np.float32)
    label_map = np.full((height, width), free, np.uint8)
    for row in numba.prange(height):
        for col in range(width):
            hit, t, bright = _sample(solid, origin, m, near, col + 0.5, row + 0.5, light, shadow, line, pixel_size)
            hits[row, col] = hit
            if hit != MISS:
                label = flat[hit // 6]
                depth[row, col], label_map[row, col] = t, label
                for i in range(3):
                    image[row, col, i] = colors[label, i] * bright
                image[row, col, 3] = 255
    for row in numba.prange(height if samples > 1 else 0):
        for col in range(width):
            edge = False
            for r in range(max(row - 1, 0), min(row + 2, height)):
                for c in range(max(col - 1, 0), min(col + 2, width)):
                    edge = edge or hits[r, c] != hits[row, col]
            if not edge:
                continue
            red, green, blue, alpha = 0.0, 0.0, 0.0, 0.0
            for k in range(samples * samples):
                u, v = col + (k % samples + 0.5) / samples, row + (k // samples + 0.5) / samples
                hit, t, bright = _sample(solid, origin, m, near, u, v, light, shadow, line, pixel_size)
                if hit != MISS:
                    label = flat[hit // 6]
                    red += colors[label, 0] * bright
                    green += colors[label, 1] * bright
                    blue += colors[label, 2] * bright
                    alpha += 255.0
            weight = 1.0 / (samples * samples)
            image[row, col, 0], image[row, col, 1] = red * weight, green * weight
            image[row, col, 2], image[row, col, 3] = blue * weight, alpha * weight
    return image, label_map, depth


def draw_voxels(
    labels: np.ndarray,
    colors: np.ndarray,
    drawn: np.ndarray,
    lower: np.ndarray,
    voxel_size: np.ndarray,
    ref2img: np.ndarray,
    width: int,
    height: int,
    free_index: int,
    samples: int = 3,
    near: float = 0.1,
    shadow: float = 0.45,
    line: float = 0.25,
) -> VoxelView:
    """Draws the voxels of some classes.

    Args:
        labels: (X, Y, Z) uint8 label ids.
        colors: (256, 3) uint8 RGB of every id.
        drawn: (256,) bool, ids that are drawn.
        lower: (3,) lower corner of the grid, metres.
        voxel_size: (3,) edge lengths, metres.
        ref2img: (4, 4), reference frame (metres) -> (u*d, v*d, d, 1); u, v in pixels, centres at +0.5; d camera z, metres.
        width: Width of the picture, pixels.
        height: Height of the picture, pixels.
        free_index: Id written to ``VoxelView.labels`` where nothing is hit.
        samples: Edge pixels are sampled ``samples ** 2`` times.
        near: Nothing is drawn closer than this camera z, metres; nor is the voxel that holds the camera.
        shadow: How much brightness a corner loses that neighbours enclose, 0..1.
        line: How much brightness border lines take, 0..1.

    Returns:
        The picture, label and depth per pixel.

    Raises:
        ValueError: If the volume is not three-dimensional or the matrix has no inverse.
    """
    labels = np.ascontiguousarray(labels, dtype=np.uint8)
    if labels.ndim != 3:
        raise ValueError(f'labels must be a volume (X, Y, Z), got shape {labels.shape}')
    ref2img = np.asarray(ref2img, dtype=np.float64)
    if ref2img.shape != (4, 4) or abs(np.linalg.det(ref2img)) < 1e-12:
        raise ValueError(f'ref2img must be an invertible 4x4 matrix, reference frame -> pixels, got shape {ref2img.shape}')
    img2ref = np.linalg.inv(ref2img)
    size = np.asarray(voxel_size, dtype=np.float64)
    origin = (img2ref[:3, 3] - np.asarray(lower, dtype=np.float64)) / size
    matrix = img2ref[:3, :3] / size[:, None]
    # voxel edges that one pixel covers per metre of depth
    pixel_size = float(np.linalg.norm(matrix[:, :2], axis=0).max())
    image, label_map, depth = _cast(
        labels,
        np.asarray(drawn, dtype=bool)[labels],
        np.asarray(colors, dtype=np.float64),
        origin,
        matrix,
        near,
        height,
        width,
        samples,
        FACE_LIGHT,
        shadow,
        line,
        pixel_size,
        free_index,
    )
    alpha = image[..., 3:]
    rgb = np.divide(image[..., :3] * 255, alpha, out=np.zeros_like(image[..., :3]), where=alpha > 0)
    rgba = np.rint(np.concatenate([rgb, alpha], axis=-1)).astype(np.uint8)
    return VoxelView(rgba, label_map, depth)
