"""Turns a street layout into voxels: ground, buildings, trees, poles, fences."""

import numpy as np

from .materials import Material as M
from .scene import Crossing, Scene

TOP = 16.0  # height of the world above the road, metres
GROUND_LAYERS = 3  # layers of voxels up to the road surface at z = 0


class Canvas:
    """The voxels of the static world while it is being built.

    Args:
        lower: (x, y) of the corner, metres.
        size: (x, y) extent, metres.
        voxel: Edge, metres.
    """

    def __init__(self, lower: tuple[float, float], size: tuple[float, float], voxel: float):
        self.voxel = voxel
        self.lower = np.array([lower[0], lower[1], -GROUND_LAYERS * voxel])
        shape = (int(np.ceil(size[0] / voxel)), int(np.ceil(size[1] / voxel)), GROUND_LAYERS + int(np.ceil(TOP / voxel)))
        self.voxels = np.zeros(shape, dtype=np.uint8)
        self.height = np.zeros(shape[:2], dtype=np.int16)  # of the ground, in voxels above the road

    def window(self, x: float, y: float, radius: float):
        """Index slices of the cells within ``radius`` of a point and their centres; None if outside."""
        index = []
        for value, low, n in ((x, self.lower[0], self.voxels.shape[0]), (y, self.lower[1], self.voxels.shape[1])):
            start = max(0, int((value - radius - low) / self.voxel))
            stop = min(n, int((value + radius - low) / self.voxel) + 1)
            if start >= stop:
                return None
            index.append(slice(start, stop))
        cx = self.lower[0] + (np.arange(index[0].start, index[0].stop) + 0.5) * self.voxel
        cy = self.lower[1] + (np.arange(index[1].start, index[1].stop) + 0.5) * self.voxel
        return index[0], index[1], cx[:, None], cy[None, :]

    def layers(self, z0: float, z1: float) -> range:
        """Indices of the layers whose centres lie between two heights, at least one."""
        start = int(np.ceil(z0 / self.voxel - 0.5)) + GROUND_LAYERS
        stop = int(np.ceil(z1 / self.voxel - 0.5)) + GROUND_LAYERS
        return range(max(0, start), min(self.voxels.shape[2], max(stop, start + 1)))

    def ground(self, x: float, y: float) -> float:
        """Height of the ground at a point, metres."""
        return float(self.height[self.cells(np.asarray(x), np.asarray(y))]) * self.voxel

    def obstacles(self, clearance: float = 2.2) -> np.ndarray:
        """Cells with something on the ground or up to ``clearance`` metres above it, (nx, ny) bool."""
        blocked = np.zeros(self.height.shape, dtype=bool)
        top = self.height + GROUND_LAYERS
        for step in range(int(np.ceil(clearance / self.voxel))):
            layer = np.minimum(top + step, self.voxels.shape[2] - 1).astype(np.int64)
            blocked |= np.take_along_axis(self.voxels, layer[..., None], axis=2)[..., 0] > 0
        return blocked

    def cells(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the cells that hold points; points outside get the nearest cell."""
        ix = np.clip(((x - self.lower[0]) / self.voxel).astype(np.int64), 0, self.height.shape[0] - 1)
        iy = np.clip(((y - self.lower[1]) / self.voxel).astype(np.int64), 0, self.height.shape[1] - 1)
        return ix, iy

    def box(self, x: float, y: float, yaw: float, length: float, width: float, z0: float, z1: float, material: int) -> None:
        """Fills an upright box; no thinner than one voxel."""
        found = self.window(x, y, 0.5 * float(np.hypot(length, width)) + self.voxel)
        if found is None:
            return
        ix, iy, cx, cy = found
        u, v = _local(cx, cy, x, y, yaw)
        inside = (np.abs(u) <= max(length, self.voxel) / 2) & (np.abs(v) <= max(width, self.voxel) / 2)
        for layer in self.layers(z0, z1):
            self.voxels[ix, iy, layer][inside] = material


def _local(cx, cy, x, y, yaw):
    c, s = np.cos(yaw), np.sin(yaw)
    return c * (cx - x) + s * (cy - y), -s * (cx - x) + c * (cy - y)


def build_street(scene: Scene, canvas: Canvas, rng: np.random.Generator) -> None:
    """Draws ground and everything that stands on it and does not move into ``canvas``."""
    _ground(scene, canvas, rng)
    for side, sign in enumerate((1, -1)):
        _lots(scene, canvas, side, sign, rng)
        _street_furniture(scene, canvas, side, sign, rng)
    if scene.crossing is not None:
        _crossing_furniture(scene, canvas, scene.crossing, rng)


def _ground(scene: Scene, canvas: Canvas, rng: np.random.Generator) -> None:
    nx, ny = canvas.height.shape
    x = canvas.lower[0] + (np.arange(nx) + 0.5)[:, None] * canvas.voxel
    y = canvas.lower[1] + (np.arange(ny) + 0.5)[None, :] * canvas.voxel
    x, y = np.broadcast_arrays(x, y)
    s, d = scene.axis.to_street(x, y)
    step = 1 if canvas.voxel <= 0.3 else 0
    material = np.full(s.shape, M.GRASS, dtype=np.uint8)
    bumps = np.zeros(s.shape)
    for _ in range(4):
        kx, ky = rng.normal(0, 0.35, 2)
        bumps += np.sin(kx * x + ky * y + rng.uniform(0, 2 * np.pi))
    slope = rng.uniform(-0.01, 0.05, 2)
    relief = np.zeros(s.shape)
    level = np.full(s.shape, step, dtype=np.int16)
    for side, sign in enumerate((1, -1)):
        kerb, verge, walk, lots = scene.sides[side].edges(scene.lane_edge)
        e = sign * d
        beyond = e >= lots
        soft = beyond.copy()
        for s0, s1, kind in scene.lots[side]:
            lot = beyond & (s >= s0) & (s < s1) & (e < lots + 30)
            hard = {'building': rng.choice([M.PAVEMENT, M.GRASS, M.PAVERS]), 'parking': rng.choice([M.PAVERS, M.ASPHALT])}
            if kind == 'construction':
                material[lot] = M.SOIL
            elif kind in hard:
                material[lot] = hard[kind]
                soft &= ~lot
            elif rng.random() < 0.2:
                material[lot] = M.SOIL
        ramp = np.clip((e - lots) / 3.0, 0, 1)
        height = 0.12 * (bumps + 1.5) + slope[side] * np.maximum(e - lots, 0)
        relief = np.where(soft, np.clip(height, -0.2, 2.0) * ramp, relief)
        material[(e >= walk) & (e < lots)] = M.PAVEMENT
        material[(e >= verge) & (e < walk)] = M.GRASS if rng.random() < 0.75 else M.PAVERS
        material[(e >= kerb) & (e < verge)] = M.KERB
    level += np.round(relief / canvas.voxel).astype(np.int16)
    crossing = scene.crossing
    if crossing is not None:
        a, b = crossing.to_local(scene.axis, x, y)
        near = np.abs(a) < 200
        walk = near & (np.abs(b) < crossing.half_width + crossing.walk)
        outside = (d >= scene.sides[0].edges(scene.lane_edge)[1]) | (-d >= scene.sides[1].edges(scene.lane_edge)[1])
        material[walk & outside] = M.PAVEMENT
        level[walk & outside] = step
        road = near & (np.abs(b) < crossing.half_width)
        material[road] = M.ASPHALT
        level[road] = 0
    carriageway = (d < scene.lane_edge + scene.sides[0].parking) & (-d < scene.lane_edge + scene.sides[1].parking)
    material[carriageway] = M.ASPHALT
    level[carriageway] = 0
    _markings(scene, material, level, s, d, x, y, step)
    canvas.height[:] = level
    for layer in range(canvas.voxels.shape[2]):
        solid = level >= layer - GROUND_LAYERS + 1
        if layer > GROUND_LAYERS and not solid.any():
            break
        canvas.voxels[:, :, layer][solid] = material[solid]


def _markings(scene, material, level, s, d, x, y, step) -> None:
    crossing = scene.crossing
    open_road = np.ones(s.shape, dtype=bool)
    if crossing is not None:
        a, b = crossing.to_local(scene.axis, x, y)
        open_road = np.abs(b) > crossing.half_width + 1.0
    dash = (s % 9.0) < 4.0
    line = 0.11
    if scene.median > 0:
        strip = (np.abs(d) < scene.median - 0.2) & open_road
        material[strip] = M.GRASS if scene.median_green else M.PAVERS
        level[strip] = step
    else:
        material[(np.abs(d) < line) & open_road & dash] = M.MARKING
    for edge in np.arange(scene.median + scene.lane_width, scene.lane_edge - 0.5, scene.lane_width):
        material[(np.abs(np.abs(d) - edge) < line) & open_road & dash] = M.MARKING
    for side, sign in enumerate((1, -1)):
        if scene.sides[side].parking > 0:
            material[(np.abs(sign * d - scene.lane_edge) < line) & open_road] = M.MARKING
    if crossing is not None:
        along = np.abs(b) - crossing.half_width
        road = (d < scene.lane_edge + scene.sides[0].parking) & (-d < scene.lane_edge + scene.sides[1].parking) & (level == 0)
        if crossing.zebra:
            material[road & (along > 1.4) & (along < 4.4) & ((d % 1.0) < 0.5)] = M.MARKING
        material[road & (along > 5.0) & (along < 5.4)] = M.MARKING
        middle = (np.abs(b) < line) & ((a % 6.0) < 3.0)
        material[middle & (np.abs(d) > scene.lane_edge + 3.0)] = M.MARKING


def _lots(scene: Scene, canvas: Canvas, side: int, sign: int, rng: np.random.Generator) -> None:
    front = scene.sides[side].edges(scene.lane_edge)[3]
    setback = {'downtown': 0.3, 'residential': 4.0, 'avenue': 3.0, 'industrial': 6.0, 'park': 5.0}[scene.theme]
    for s0, s1, kind in scene.lots[side]:
        length, middle = s1 - s0, 0.5 * (s0 + s1)
        gap = rng.uniform(0.0, 0.5 * setback) if kind == 'building' else 0.0
        if kind == 'building':
            depth = rng.uniform(8, 13)
            offset = front + max(0.2, rng.normal(setback, 0.4 * setback))
            x, y, heading = scene.axis.to_world(middle, sign * (offset + depth / 2))
            _building(canvas, float(x), float(y), float(heading), length - 2 * gap - 0.4, depth, scene.theme, rng)
            count = rng.poisson(1.5) if setback > 2 else 0
            spread = offset - front
        elif kind in ('park', 'yard'):
            count = rng.poisson(length * (0.45 if kind == 'park' else 0.15))
            spread = 24.0
        else:
            count, spread = rng.poisson(0.6), 20.0
        for _ in range(count):
            e = front + rng.uniform(0.8, max(1.0, spread))
            x, y, _ = scene.axis.to_world(rng.uniform(s0 + 1, s1 - 1), sign * e)
            _tree(canvas, float(x), float(y), rng, bush=rng.random() < 0.3)
        if kind in ('yard', 'construction', 'parking') and rng.random() < 0.7 or kind == 'park' and rng.random() < 0.3:
            x, y, heading = scene.axis.to_world(middle, sign * (front + 0.4))
            material, thickness = (M.FENCE, 0.2) if rng.random() < 0.5 else (M.CONCRETE, 0.3)
            if kind in ('yard', 'park') and rng.random() < 0.5:
                material, thickness = M.LEAF_DARK, 0.8
            base = canvas.ground(float(x), float(y))
            canvas.box(
                float(x), float(y), float(heading), length - 3.0, thickness, base, base + rng.uniform(0.8, 1.8), material
            )


def _building(canvas, x, y, yaw, length, depth, theme, rng) -> None:
    reach = 0.5 * float(np.hypot(length, depth)) + 1.0
    found = canvas.window(x, y, reach)
    if found is None or length < 3:
        return
    ix, iy, cx, cy = found
    u, v = _local(cx, cy, x, y, yaw)
    floors = {'downtown': (2, 5), 'residential': (1, 3), 'avenue': (2, 4), 'industrial': (1, 3), 'park': (1, 3)}[theme]
    floor = rng.uniform(2.8, 3.4)
    height = floor * rng.integers(*floors) + rng.uniform(0.3, 0.8)
    wall = int(rng.choice([M.PLASTER, M.BRICK, M.CONCRETE, M.CLADDING]))
    gable = theme in ('residential', 'park') and rng.random() < 0.7
    inside = (np.abs(u) <= length / 2) & (np.abs(v) <= depth / 2)
    shop = theme == 'downtown' and rng.random() < 0.6
    spacing, opening = rng.uniform(2.2, 3.4), rng.uniform(1.0, 1.6)
    along = np.where(length / 2 - np.abs(u) < depth / 2 - np.abs(v), v, u)
    column = (along % spacing) < opening
    door = (np.abs(u - rng.uniform(-0.3, 0.3) * length) < 0.6) & (np.abs(v) > depth / 2 - 2 * canvas.voxel)
    for layer in canvas.layers(-0.2, min(TOP, height)):
        z = (layer - GROUND_LAYERS + 0.5) * canvas.voxel
        level = z % floor
        low, high = (0.5, 2.6) if shop and z < floor else (0.9, 2.3)
        target = canvas.voxels[ix, iy, layer]
        target[inside] = wall
        if low < level < high:
            target[inside & column] = M.WINDOW
        if 0 < z < 2.2:
            target[inside & door] = M.DOOR
    if gable:
        rise = rng.uniform(1.8, 3.0)
        for layer in canvas.layers(height, min(TOP, height + rise)):
            z = (layer - GROUND_LAYERS + 0.5) * canvas.voxel - height
            half = (depth / 2 + 0.4) * (1 - z / rise)
            canvas.voxels[ix, iy, layer][(np.abs(u) <= length / 2 + 0.2) & (np.abs(v) <= half)] = M.ROOF
    elif height < TOP - 0.5:
        for layer in canvas.layers(height, height + 0.4):
            canvas.voxels[ix, iy, layer][inside] = M.CONCRETE


def _tree(canvas: Canvas, x: float, y: float, rng: np.random.Generator, bush: bool = False, slim: bool = False) -> None:
    base = canvas.ground(x, y)
    leaf = int(rng.choice([M.LEAF_DARK, M.LEAF_LIGHT, M.LEAF_OLIVE]))
    if bush:
        centre, radius, rise = base + 0.4, rng.uniform(0.6, 1.3), rng.uniform(0.6, 1.1)
    else:
        trunk = rng.uniform(2.2, 3.4) if slim else rng.uniform(1.6, 3.2)
        radius, rise = rng.uniform(0.9, 1.6) if slim else rng.uniform(1.2, 2.6), rng.uniform(1.4, 3.0)
        centre = base + trunk + 0.8 * rise
        thickness = rng.uniform(0.3, 0.55)
        canvas.box(x, y, 0.3, thickness, thickness, base, centre, M.TRUNK)
    found = canvas.window(x, y, radius * 1.2)
    if found is None:
        return
    ix, iy, cx, cy = found
    lobes = [(0.0, 0.0, 0.0, 1.0)] + [
        (*(rng.uniform(-0.5, 0.5, 2) * radius), rng.uniform(-0.4, 0.5) * rise, rng.uniform(0.5, 0.75)) for _ in range(3)
    ]
    for layer in canvas.layers(centre - rise * 1.2, centre + rise * 1.3):
        z = (layer - GROUND_LAYERS + 0.5) * canvas.voxel
        inside = np.zeros((cx.shape[0], cy.shape[1]), dtype=bool)
        for lx, ly, lz, scale in lobes:
            r2 = ((cx - x - lx) ** 2 + (cy - y - ly) ** 2) / (radius * scale) ** 2 + ((z - centre - lz) / (rise * scale)) ** 2
            inside |= r2 < 1
        inside &= rng.random(inside.shape) > 0.12
        target = canvas.voxels[ix, iy, layer]
        target[inside & (target == M.EMPTY)] = leaf


def _street_furniture(scene: Scene, canvas: Canvas, side: int, sign: int, rng: np.random.Generator) -> None:
    kerb, verge, walk, lots = scene.sides[side].edges(scene.lane_edge)
    start, stop = scene.span(55.0)
    if rng.random() < 0.75:  # street lamps
        for s in np.arange(start + rng.uniform(0, 20), stop, rng.uniform(16, 30)):
            if not scene.near_crossing(s, 0.0):
                x, y, heading = scene.axis.to_world(s, sign * (verge + 0.3))
                _lamp(canvas, float(x), float(y), float(heading) - sign * np.pi / 2, rng)
    in_verge = scene.sides[side].verge > 0.7
    if in_verge or (scene.sides[side].walk > 2.5 and rng.random() < 0.5):  # a row of trees
        e = max(0.5 * (verge + walk), kerb + 0.9) if in_verge else verge + 0.8
        for s in np.arange(start + rng.uniform(0, 9), stop, rng.uniform(6, 14)):
            if rng.random() < 0.75 and not scene.near_crossing(s, 2.0):
                x, y, _ = scene.axis.to_world(s, sign * e)
                _tree(canvas, float(x), float(y), rng, slim=True)
    for _ in range(rng.poisson(4)):  # signs, bins, boxes
        s = rng.uniform(start, stop)
        if scene.near_crossing(s, 0.0):
            continue
        x, y, heading = (
            float(v) for v in scene.axis.to_world(s, sign * rng.uniform(verge + 0.3, max(verge + 0.5, lots - 0.3)))
        )
        base = canvas.ground(x, y)
        kind = rng.random()
        if kind < 0.4:
            canvas.box(x, y, heading, 0.12, 0.12, base, base + 2.8, M.METAL)
            canvas.box(x, y, heading, 0.12, 0.7, base + 2.1, base + 2.8, M.SIGN)
        elif kind < 0.8:
            canvas.box(x, y, heading, 0.6, 0.6, base, base + 1.1, M.BIN)
        else:
            canvas.box(x, y, heading, 1.2, 0.5, base, base + 1.4, M.CONCRETE)
    if rng.random() < 0.3 and lots - kerb > 3.0:  # bus shelter
        x, y, heading = (float(v) for v in scene.axis.to_world(rng.uniform(start + 30, stop - 30), sign * (lots - 0.7)))
        base = canvas.ground(x, y)
        canvas.box(x, y, heading, 4.0, 1.4, base + 2.3, base + 2.5, M.METAL)
        back = scene.axis.to_world(scene.axis.to_street(x, y)[0], sign * (lots - 0.1))
        canvas.box(float(back[0]), float(back[1]), heading, 4.0, 0.2, base, base + 2.3, M.WINDOW)


def _lamp(canvas: Canvas, x: float, y: float, towards: float, rng: np.random.Generator) -> None:
    base, height, arm = canvas.ground(x, y), rng.uniform(5.0, 7.5), rng.uniform(1.0, 2.2)
    canvas.box(x, y, 0.0, 0.2, 0.2, base, height, M.METAL)
    canvas.box(
        x + 0.5 * arm * np.cos(towards), y + 0.5 * arm * np.sin(towards), towards, arm, 0.15, height - 0.2, height, M.METAL
    )


def _crossing_furniture(scene: Scene, canvas: Canvas, crossing: Crossing, rng: np.random.Generator) -> None:
    """Traffic lights at the corners and trees or houses along the crossing road."""
    lights = rng.random() < 0.6
    for along in (-1, 1):
        for across in (-1, 1):
            side = 0 if along > 0 else 1
            kerb = scene.sides[side].edges(scene.lane_edge)[1]
            x, y, heading = crossing.to_world(scene.axis, along * (kerb + 0.6), across * (crossing.half_width + 0.6))
            if lights:
                base = canvas.ground(x, y)
                canvas.box(x, y, heading, 0.2, 0.2, base, base + 3.4, M.METAL)
                canvas.box(x, y, heading, 0.4, 0.4, base + 2.5, base + 3.4, M.SIGN if rng.random() < 0.1 else M.METAL)
            for distance in np.arange(kerb + 12, 60, rng.uniform(9, 16)):
                offset = across * (crossing.half_width + crossing.walk + rng.uniform(1.5, 3.0))
                x, y, _ = crossing.to_world(scene.axis, along * distance, offset)
                _tree(canvas, x, y, rng, bush=rng.random() < 0.4)
