"""Voxel models of traffic participants: small boxes of material ids, x forward, y left, z up."""

from collections.abc import Callable

import numpy as np

from .materials import Material as M
from .materials import to_linear

OBJECT_VOXEL = 0.1  # metres

_CAR_COLOURS = (
    (236, 236, 236),
    (28, 30, 34),
    (160, 166, 172),
    (176, 24, 28),
    (30, 66, 150),
    (92, 98, 104),
    (20, 84, 66),
    (196, 160, 60),
)
_CLOTHES = (
    (180, 30, 60),
    (40, 60, 140),
    (230, 200, 60),
    (50, 50, 56),
    (220, 220, 225),
    (30, 120, 90),
    (150, 60, 150),
    (235, 120, 60),
)


def _empty(length: float, width: float, height: float) -> np.ndarray:
    return np.zeros([max(1, round(v / OBJECT_VOXEL)) for v in (length, width, height)], dtype=np.uint8)


def _fill(model: np.ndarray, x: tuple, y: tuple, z: tuple, material: int) -> None:
    """Fills a box given in fractions of the model's size; at least one voxel thick."""
    index = []
    for (lo, hi), n in zip((x, y, z), model.shape):
        start = min(n - 1, max(0, round(lo * n)))
        index.append(slice(start, min(n, max(start + 1, round(hi * n)))))
    model[tuple(index)] = material


def _wheels(model: np.ndarray, centres: tuple[float, ...], radius: float, thickness: float = 0.25) -> None:
    """Adds pairs of wheels at fractions ``centres`` of the length; radius and thickness in metres."""
    r, t = radius / OBJECT_VOXEL, max(1, round(thickness / OBJECT_VOXEL))
    x = np.arange(model.shape[0])[:, None] + 0.5
    z = np.arange(model.shape[2])[None, :] + 0.5
    for centre in centres:
        disc = (x - centre * model.shape[0]) ** 2 + (z - r) ** 2 <= r * r
        model[:, :t][np.repeat(disc[:, None], t, axis=1)] = M.TYRE
        model[:, -t:][np.repeat(disc[:, None], t, axis=1)] = M.TYRE


def _person(model: np.ndarray, base: float, rng: np.random.Generator, x: float = 0.5) -> None:
    """Puts a torso, arms and a head above the height fraction ``base``, around the length fraction ``x``."""
    n = model.shape
    depth = 0.15 / (n[0] * OBJECT_VOXEL)
    span = 1 - base
    _fill(model, (x - depth, x + depth), (0.12, 0.88), (base + 0.25 * span, base + 0.72 * span), M.PAINT)
    _fill(model, (x - depth, x + depth), (0.2, 0.8), (base, base + 0.3 * span), M.PAINT2)
    half = 0.1 / (n[1] * OBJECT_VOXEL)
    _fill(model, (x - depth, x + depth), (0.5 - half, 0.5 + half), (base + 0.72 * span, 1.0), M.SKIN)
    if rng.random() < 0.8:
        _fill(model, (x - depth, x + depth), (0.5 - half, 0.5 + half), (base + 0.92 * span, 1.0), M.HAIR)


def _car(rng: np.random.Generator) -> np.ndarray:
    van = rng.random() < 0.25
    model = _empty(rng.uniform(3.8, 4.9), rng.uniform(1.75, 1.95), rng.uniform(1.75, 2.0) if van else rng.uniform(1.45, 1.65))
    nx, _, nz = model.shape
    _fill(model, (0, 1), (0, 1), (0.17, 0.58), M.PAINT)
    rear, front = (0.0, 0.75) if van else (rng.uniform(0.02, 0.16), rng.uniform(0.68, 0.74))
    belt = round(0.58 * nz)
    for z in range(belt, nz):
        lean = 0.16 * (z - belt) / max(1, nz - belt)
        x0, x1 = round((rear + lean * 0.6) * nx), round((front - lean) * nx)
        model[x0:x1, 1:-1, z] = M.GLASS if z < nz - 1 else M.PAINT
        model[x0 : x0 + 1, 1:-1, z] = M.PAINT if van else model[x0 : x0 + 1, 1:-1, z]
        for pillar in (0.30, 0.55):
            model[round(pillar * nx) : round(pillar * nx) + 1, 1:-1, z] = M.PAINT
    _wheels(model, (0.2, 0.81), 0.33, 0.2)
    _fill(model, (1, 1), (0, 0.22), (0.38, 0.48), M.HEADLIGHT)
    _fill(model, (1, 1), (0.78, 1), (0.38, 0.48), M.HEADLIGHT)
    _fill(model, (0, 0), (0, 0.2), (0.42, 0.54), M.TAILLIGHT)
    _fill(model, (0, 0), (0.8, 1), (0.42, 0.54), M.TAILLIGHT)
    return model


def _truck(rng: np.random.Generator) -> np.ndarray:
    model = _empty(rng.uniform(6.0, 8.5), rng.uniform(2.3, 2.6), rng.uniform(2.9, 3.5))
    cab = 1 - 2.1 / (model.shape[0] * OBJECT_VOXEL)
    _fill(model, (0, 1), (0.08, 0.92), (0.14, 0.26), M.DARK)
    _fill(model, (0, cab - 0.03), (0, 1), (0.26, 1.0), M.PAINT2)
    _fill(model, (0, cab - 0.03), (0, 1), (0.26, 0.30), M.CHROME)
    _fill(model, (cab, 1), (0.02, 0.98), (0.14, 0.88), M.PAINT)
    _fill(model, (cab + 0.1, 1), (0.02, 0.98), (0.52, 0.76), M.GLASS)
    _wheels(model, (0.12, 0.24, 0.86), 0.45, 0.3)
    _fill(model, (1, 1), (0.05, 0.2), (0.22, 0.3), M.HEADLIGHT)
    _fill(model, (1, 1), (0.8, 0.95), (0.22, 0.3), M.HEADLIGHT)
    _fill(model, (0, 0), (0, 0.12), (0.2, 0.27), M.TAILLIGHT)
    _fill(model, (0, 0), (0.88, 1), (0.2, 0.27), M.TAILLIGHT)
    return model


def _bus(rng: np.random.Generator) -> np.ndarray:
    model = _empty(rng.uniform(9.5, 12.0), rng.uniform(2.5, 2.8), rng.uniform(3.0, 3.4))
    _fill(model, (0, 1), (0, 1), (0.1, 1.0), M.PAINT)
    _fill(model, (0, 1), (0, 1), (0.3, 0.38), M.PAINT2)
    _fill(model, (0.02, 1), (0, 1), (0.46, 0.82), M.GLASS)
    for pillar in np.arange(0.1, 1.0, 0.125):
        _fill(model, (pillar, pillar), (0, 1), (0.46, 0.82), M.PAINT)
    _wheels(model, (0.22, 0.78), 0.48, 0.3)
    _fill(model, (1, 1), (0.04, 0.18), (0.18, 0.24), M.HEADLIGHT)
    _fill(model, (1, 1), (0.82, 0.96), (0.18, 0.24), M.HEADLIGHT)
    _fill(model, (1, 1), (0.2, 0.8), (0.86, 0.94), M.ORANGE)
    _fill(model, (0, 0), (0.02, 0.14), (0.2, 0.3), M.TAILLIGHT)
    _fill(model, (0, 0), (0.86, 0.98), (0.2, 0.3), M.TAILLIGHT)
    return model


def _trailer(rng: np.random.Generator) -> np.ndarray:
    model = _empty(rng.uniform(7.0, 11.0), rng.uniform(2.4, 2.6), rng.uniform(3.0, 3.8))
    _fill(model, (0, 1), (0.1, 0.9), (0.22, 0.32), M.DARK)
    flatbed = rng.random() < 0.3
    _fill(model, (0, 1), (0, 1), (0.32, 0.4 if flatbed else 1.0), M.PAINT)
    if flatbed:
        _fill(model, (0.97, 1), (0, 1), (0.4, 1.0), M.PAINT2)
        _fill(model, (0.08, 0.45), (0.1, 0.9), (0.4, 0.75), M.PAINT2)
        _fill(model, (0.52, 0.9), (0.1, 0.9), (0.4, 0.7), M.PAINT2)
    else:
        for rib in np.arange(0.04, 1.0, 0.07):
            _fill(model, (rib, rib), (0, 1), (0.34, 0.98), M.PAINT2)
    _wheels(model, (0.1, 0.2, 0.3), 0.45, 0.3)
    _fill(model, (0.85, 0.88), (0.3, 0.7), (0, 0.22), M.DARK)
    return model


def _construction_vehicle(rng: np.random.Generator) -> np.ndarray:
    model = _empty(rng.uniform(6.0, 7.5), rng.uniform(2.4, 2.8), rng.uniform(3.0, 3.6))
    nx, _, nz = model.shape
    _fill(model, (0.0, 0.58), (0, 0.24), (0, 0.24), M.DARK)
    _fill(model, (0.0, 0.58), (0.76, 1), (0, 0.24), M.DARK)
    _fill(model, (0.02, 0.52), (0.06, 0.94), (0.24, 0.58), M.PAINT)
    _fill(model, (0.28, 0.5), (0.5, 0.92), (0.58, 0.92), M.GLASS)
    _fill(model, (0.26, 0.52), (0.48, 0.94), (0.92, 0.97), M.PAINT)
    boom = ((0.45, 0.5), (0.7, 0.95), (0.93, 0.5), (0.95, 0.1))
    for (xa, za), (xb, zb) in zip(boom[:-1], boom[1:]):
        for a in np.linspace(0, 1, 40):
            x, z = xa + a * (xb - xa), za + a * (zb - za)
            _fill(model, (x - 0.15 / (nx * 0.1), x + 0.15 / (nx * 0.1)), (0.2, 0.36), (z - 0.05, z + 0.05), M.PAINT)
    _fill(model, (0.86, 1.0), (0.1, 0.46), (0.0, 0.16), M.DARK)
    _fill(model, (0.0, 0.1), (0.1, 0.9), (0.5, 0.66), M.PAINT2)
    return model


def _two_wheels(model: np.ndarray, radius: float) -> None:
    r = radius / OBJECT_VOXEL
    x = np.arange(model.shape[0])[:, None] + 0.5
    z = np.arange(model.shape[2])[None, :] + 0.5
    middle = slice(model.shape[1] // 2 - 1, model.shape[1] // 2 + 1)
    for centre in (r, model.shape[0] - r):
        distance = np.hypot(x - centre, z - r)
        ring = (distance <= r) & (distance > r - 1.6)
        model[:, middle][np.repeat(ring[:, None], 2, axis=1)] = M.TYRE


def _bicycle(rng: np.random.Generator) -> np.ndarray:
    rider = rng.random() < 0.6
    model = _empty(rng.uniform(1.6, 1.8), 0.6, rng.uniform(1.6, 1.75) if rider else 1.1)
    metre = 1 / (model.shape[2] * OBJECT_VOXEL)
    _two_wheels(model, 0.34)
    _fill(model, (0.25, 0.75), (0.4, 0.6), (0.5 * metre, 0.65 * metre), M.PAINT2)
    _fill(model, (0.45, 0.55), (0.4, 0.6), (0.3 * metre, 0.9 * metre), M.PAINT2)
    _fill(model, (0.76, 0.84), (0.0, 1.0), (0.95 * metre, 1.05 * metre), M.CHROME)
    _fill(model, (0.76, 0.82), (0.4, 0.6), (0.5 * metre, 1.0 * metre), M.PAINT2)
    if rider:
        _person(model, 0.8 * metre, rng, 0.5)
        _fill(model, (0.45, 0.6), (0.2, 0.8), (0.35 * metre, 0.85 * metre), M.DARK)
    return model


def _motorcycle(rng: np.random.Generator) -> np.ndarray:
    rider = rng.random() < 0.6
    model = _empty(rng.uniform(2.0, 2.3), 0.8, rng.uniform(1.55, 1.75) if rider else 1.2)
    metre = 1 / (model.shape[2] * OBJECT_VOXEL)
    _two_wheels(model, 0.32)
    _fill(model, (0.25, 0.78), (0.25, 0.75), (0.35 * metre, 0.75 * metre), M.DARK)
    _fill(model, (0.45, 0.72), (0.2, 0.8), (0.65 * metre, 0.9 * metre), M.PAINT2)
    _fill(model, (0.08, 0.3), (0.3, 0.7), (0.6 * metre, 0.85 * metre), M.PAINT2)
    _fill(model, (0.74, 0.82), (0.0, 1.0), (1.0 * metre, 1.1 * metre), M.CHROME)
    _fill(model, (0.8, 0.86), (0.35, 0.65), (0.75 * metre, 1.05 * metre), M.HEADLIGHT)
    if rider:
        _person(model, 0.8 * metre, rng, 0.45)
        _fill(model, (0.4, 0.5), (0.35, 0.65), (0.88, 1.0), M.RED)
    return model


def _pedestrian(rng: np.random.Generator) -> np.ndarray:
    model = _empty(rng.choice([0.4, 0.5, 0.6]), 0.6, rng.uniform(1.55, 1.9))
    _fill(model, (0.5, 0.9), (0.2, 0.45), (0.0, 0.48), M.PAINT2)
    _fill(model, (0.1, 0.5), (0.55, 0.8), (0.0, 0.48), M.PAINT2)
    _fill(model, (0.2, 0.8), (0.0, 1.0), (0.46, 0.83), M.PAINT)
    _fill(model, (0.25, 0.75), (0.3, 0.7), (0.83, 1.0), M.SKIN)
    _fill(model, (0.25, 0.75), (0.3, 0.7), (0.94, 1.0), M.HAIR)
    return model


def _traffic_cone(rng: np.random.Generator) -> np.ndarray:
    model = _empty(0.5, 0.5, rng.uniform(0.7, 1.0))
    nz = model.shape[2]
    _fill(model, (0, 1), (0, 1), (0, 0.1), M.ORANGE)
    for z in range(1, nz):
        half = 0.32 * (1 - 0.75 * z / nz)
        _fill(model, (0.5 - half, 0.5 + half), (0.5 - half, 0.5 + half), (z / nz, (z + 1) / nz), M.ORANGE)
    for band in (0.45, 0.72):
        layer = model[:, :, round(band * nz)]
        layer[layer > 0] = M.WHITE
    return model


def _barrier(rng: np.random.Generator) -> np.ndarray:
    model = _empty(rng.uniform(1.6, 2.4), 0.5, rng.uniform(0.9, 1.1))
    if rng.random() < 0.5:  # solid, with warning stripes
        _fill(model, (0, 1), (0.2, 0.8), (0, 1), M.RED)
        _fill(model, (0, 1), (0, 1), (0, 0.3), M.WHITE)
        for start in np.arange(0, 1, 0.25):
            _fill(model, (start, start + 0.125), (0.2, 0.8), (0.3, 1), M.WHITE)
    else:  # boards on feet
        _fill(model, (0.05, 0.15), (0, 1), (0, 0.12), M.DARK)
        _fill(model, (0.85, 0.95), (0, 1), (0, 0.12), M.DARK)
        _fill(model, (0.06, 0.14), (0.4, 0.6), (0, 1), M.WHITE)
        _fill(model, (0.86, 0.94), (0.4, 0.6), (0, 1), M.WHITE)
        for base in (0.35, 0.75):
            for step, start in enumerate(np.arange(0, 1, 0.125)):
                _fill(model, (start, start + 0.125), (0.4, 0.6), (base, base + 0.25), (M.RED, M.WHITE)[step % 2])
    return model


MODELS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    'car': _car,
    'truck': _truck,
    'bus': _bus,
    'trailer': _trailer,
    'construction_vehicle': _construction_vehicle,
    'bicycle': _bicycle,
    'motorcycle': _motorcycle,
    'pedestrian': _pedestrian,
    'traffic_cone': _traffic_cone,
    'barrier': _barrier,
}
_COLOURS = {
    'car': (_CAR_COLOURS, ((60, 60, 60),)),
    'truck': (
        ((200, 40, 40), (40, 80, 170), (235, 235, 235), (240, 150, 30)),
        ((225, 225, 220), (190, 196, 206), (90, 120, 190)),
    ),
    'bus': (((240, 196, 30), (205, 40, 46), (40, 140, 90), (245, 130, 30)), ((250, 250, 250), (30, 30, 40))),
    'trailer': (((130, 74, 40), (120, 124, 130), (60, 90, 120), (150, 40, 30)), ((96, 60, 36), (90, 94, 100), (44, 66, 92))),
    'construction_vehicle': (((250, 186, 10), (240, 140, 10), (235, 200, 40)), ((40, 40, 44), (120, 100, 30))),
    'bicycle': (_CLOTHES, ((200, 30, 30), (30, 120, 200), (40, 40, 44), (50, 170, 90))),
    'motorcycle': (((30, 30, 34), (90, 40, 30), (60, 70, 90)), ((190, 30, 30), (20, 20, 24), (30, 70, 170))),
    'pedestrian': (_CLOTHES, ((40, 50, 90), (46, 46, 50), (120, 100, 80), (90, 90, 96))),
    'traffic_cone': (((245, 108, 20),), ((238, 238, 236),)),
    'barrier': (((206, 36, 30),), ((238, 238, 236),)),
}


def build_model(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws one object of a class.

    Args:
        name: A key of ``MODELS``.
        rng: Source of its size, shape and colours.

    Returns:
        Voxels (l, w, h) uint8 material ids (0 = empty) with edges of ``OBJECT_VOXEL``, x forward, y left, z up; every side of
        the box is touched. Colours (2, 3) of ``PAINT`` and ``PAINT2``, linear light.
    """
    model = MODELS[name](rng)
    occupied = np.nonzero(model)
    model = model[tuple(slice(axis.min(), axis.max() + 1) for axis in occupied)]
    paints = np.array([choices[rng.integers(len(choices))] for choices in _COLOURS[name]], dtype=np.float64) / 255
    paints = np.clip(paints * rng.normal(1.0, 0.08, (2, 1)) + rng.normal(0, 0.02, (2, 3)), 0.01, 0.99)
    return np.ascontiguousarray(model), to_linear(paints)
