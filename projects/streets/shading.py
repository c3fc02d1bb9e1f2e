"""Colours of ray hits: texture, sun with cast shadows, sky light, haze; and the sky itself."""

from typing import NamedTuple

import numpy as np
from numba import njit

from .materials import Material, Texture, to_linear
from .ray_cast import trace_objects, trace_static

_TILES, _BRICKS, _GLASS = int(Texture.TILES), int(Texture.BRICKS), int(Texture.GLASS)
_PLAIN = int(Texture.PLAIN)
_PAINT, _PAINT2 = int(Material.PAINT), int(Material.PAINT2)
_FIRST_OBJECT_MATERIAL = _PAINT
_DISTANT_GROUND = to_linear(np.array([0.45, 0.47, 0.40]))


class Light(NamedTuple):
    """Light of a scene, linear RGB: ``towards_sun`` (3,) unit vector, ``sun``, ``sky``, ``horizon`` (3,), share of clouds."""

    towards_sun: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    horizon: np.ndarray
    clouds: float


def draw_light(kind: str, rng: np.random.Generator) -> Light:
    """Light of the kind ``'day'``, ``'overcast'`` or ``'dusk'``."""
    azimuth = rng.uniform(-np.pi, np.pi)
    elevation = np.radians({'day': rng.uniform(28, 65), 'overcast': rng.uniform(35, 65), 'dusk': rng.uniform(9, 18)}[kind])
    towards = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    sun, sky, horizon, clouds = {
        'day': ((1.75, 1.64, 1.44), (0.34, 0.50, 0.82), (0.72, 0.80, 0.90), 0.25),
        'overcast': ((0.34, 0.34, 0.34), (0.80, 0.82, 0.86), (0.80, 0.81, 0.82), 1.0),
        'dusk': ((1.50, 0.98, 0.56), (0.36, 0.40, 0.58), (0.88, 0.66, 0.50), 0.5),
    }[kind]
    scale = rng.uniform(0.85, 1.15)
    return Light(towards, scale * np.array(sun), scale * np.array(sky), np.array(horizon), clouds)


@njit(cache=True, nogil=True)
def _hash(x, y, z):
    """Integer lattice point -> [0, 1)."""
    h = (x * 374761393 + y * 668265263 + z * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@njit(cache=True, nogil=True)
def _noise(x, y, z):
    """Value noise in [-1, 1] with one cell per unit."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    ix, iy, iz = int(fx), int(fy), int(fz)
    u, v, w = x - fx, y - fy, z - fz
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    low = (_hash(ix, iy, iz) * (1 - u) + _hash(ix + 1, iy, iz) * u) * (1 - v)
    low += (_hash(ix, iy + 1, iz) * (1 - u) + _hash(ix + 1, iy + 1, iz) * u) * v
    high = (_hash(ix, iy, iz + 1) * (1 - u) + _hash(ix + 1, iy, iz + 1) * u) * (1 - v)
    high += (_hash(ix, iy + 1, iz + 1) * (1 - u) + _hash(ix + 1, iy + 1, iz + 1) * u) * v
    return 2.0 * (low * (1 - w) + high * w) - 1.0


@njit(cache=True, nogil=True)
def _pattern(kind, frequency, x, y, z, footprint):
    """Relative brightness change of a texture at a point; fades where a pixel covers more than a cell."""
    fade = 1.0 / (1.0 + (footprint * frequency) ** 2)
    coarse = 0.5 * _noise(x * 0.35, y * 0.35, z * 0.35)
    value = fade * _noise(x * frequency, y * frequency, z * frequency)
    if kind == _TILES:
        u, v = x * frequency, y * frequency
        cell = _hash(int(np.floor(u)), int(np.floor(v)), 7) - 0.5
        joint = min(min(u - np.floor(u), v - np.floor(v)), 1.0)
        value = fade * (cell + (-0.9 if joint < 0.09 else 0.1)) + 0.2 * value
    elif kind == _BRICKS:
        row = np.floor(z * frequency * 2)
        u = (x + y) * frequency + 0.5 * (row % 2)
        cell = _hash(int(np.floor(u)), int(row), 3) - 0.5
        joint = z * frequency * 2 - row < 0.15 or u - np.floor(u) < 0.08
        value = fade * (cell + (-0.7 if joint else 0.1))
    return value + coarse


@njit(cache=True, nogil=True)
def _sky(direction, light, out):
    """Radiance of the sky: gradient, clouds, brighter around the sun."""
    up = max(direction[2], 0.0)
    blend = up**0.45
    cloud = 0.0
    if up > 0.02:
        u, v = direction[0] / (up + 0.15), direction[1] / (up + 0.15)
        cloud = 0.5 + 0.5 * (_noise(u * 1.5, v * 1.5, 1.0) + 0.5 * _noise(u * 4.0, v * 4.0, 2.0))
        cloud = min(1.0, max(0.0, (cloud - 0.75 + 0.5 * light.clouds) * 2.0)) * min(1.0, up * 5.0)
    towards = direction[0] * light.towards_sun[0] + direction[1] * light.towards_sun[1] + direction[2] * light.towards_sun[2]
    glow = max(0.0, towards) ** 24 * (1.0 - 0.8 * (light.clouds > 0.9))
    for c in range(3):
        value = light.horizon[c] * (1 - blend) + light.sky[c] * blend
        value = value * (1 - 0.7 * cloud) + 0.88 * 0.7 * cloud * (0.5 + 0.5 * light.horizon[c])
        out[c] = value + 0.35 * glow * light.sun[c]


@njit(cache=True, nogil=True)
def shade(
    flat, dims, coarse, lower, voxel, objects, active, paints, palette, texture, amplitude, frequency,
    light, shadows, haze_distance, pixel_angle, origin, directions, t, material, obj, normal, out,
):  # fmt: skip
    """Colours of R rays, linear RGB.

    Args:
        flat, dims, coarse, lower, voxel, objects, active: The world, as for :func:`~.ray_cast.cast_rays`.
        paints: (K, 2, 3) colours of the objects.
        palette, texture, amplitude, frequency: Per material, see :mod:`~.materials`.
        light: :class:`Light`.
        shadows: Whether to cast shadow rays.
        haze_distance: metres.
        pixel_angle: Angle between neighbouring pixels, rad.
        origin: (3,) camera centre, world metres.
        directions, t, material, obj, normal: Rays and hits, as of :func:`~.ray_cast.cast_rays`.
        out: Output (R, 3) float32.
    """
    base = np.empty(3)
    sky = np.empty(3)
    point = np.empty(3)
    o = np.empty(3)
    d = np.empty(3)
    sun = light.towards_sun
    for a in range(3):
        d[a] = sun[a] / voxel
    for r in range(len(directions)):
        direction = directions[r]
        _sky(direction, light, sky)
        if t[r] < 0:
            if direction[2] < -1e-3:  # ground beyond the world
                haze = 1.0 - np.exp(origin[2] / (direction[2] * haze_distance))
                for c in range(3):
                    out[r, c] = _DISTANT_GROUND[c] * (light.sky[c] + 0.5 * light.sun[c]) * (1 - haze) + light.horizon[c] * haze
            else:
                for c in range(3):
                    out[r, c] = sky[c]
            continue
        distance = float(t[r])
        m, k = material[r], obj[r]
        for a in range(3):
            point[a] = origin[a] + distance * direction[a]
        for c in range(3):
            base[c] = palette[m, c]
        x, y, z = point[0], point[1], point[2]
        if k >= 0:
            if m == _PAINT:
                base[:] = paints[k, 0]
            elif m == _PAINT2:
                base[:] = paints[k, 1]
            x, y, z = x - objects.centre[k, 0], y - objects.centre[k, 1], z - objects.centre[k, 2]
        kind = texture[m]
        factor = 1.0
        if kind != _GLASS:
            factor += amplitude[m] * _pattern(kind, frequency[m], x, y, z, distance * pixel_angle)
        n = normal[r]
        lambert = n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]
        lit = max(0.0, lambert)
        if shadows and lit > 0.0 and light.clouds < 0.9:
            for a in range(3):
                point[a] += 0.6 * voxel * n[a] - 1e-3 * direction[a]
                o[a] = (point[a] - lower[a]) / voxel
            blocked = trace_static(flat, dims, coarse, o, d, 40.0)[0] >= 0.0
            if not blocked:
                blocked = trace_objects(objects, active, point, sun, 40.0)[2] >= 0
            if blocked:
                lit = 0.0
        ambient = 0.62 + 0.38 * n[2]
        haze = 1.0 - np.exp(-distance / haze_distance)
        reflect = 0.0
        if kind == _GLASS:
            reflect = 0.25 + 0.35 * (1.0 - abs(n[0] * direction[0] + n[1] * direction[1] + n[2] * direction[2]))
        for c in range(3):
            colour = base[c] * factor * (light.sun[c] * lit + light.sky[c] * ambient)
            if reflect > 0.0:
                colour = colour * (1 - reflect) + reflect * 0.5 * (light.sky[c] + light.horizon[c] * 0.3)
            out[r, c] = colour * (1 - haze) + light.horizon[c] * haze
