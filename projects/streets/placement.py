"""Places vehicles, people and road works in a street layout and moves them."""

from dataclasses import dataclass

import numpy as np

from .objects import OBJECT_VOXEL, build_model
from .scene import Scene
from .street import Canvas

FEATURED = ('bus', 'bicycle', 'pedestrian', 'truck', 'traffic_cone', 'motorcycle', 'construction_vehicle', 'barrier', 'trailer')
_LARGE = ('bus', 'truck', 'trailer', 'construction_vehicle')


@dataclass
class Actor:
    """One object.

    Attributes:
        name: Class name.
        model: (l, w, h) uint8 voxels, see :func:`~.objects.build_model`.
        paints: (2, 3) colours.
        on_crossing: Whether s and d are coordinates of the crossing road instead of the street.
        s, d: Position at time 0, metres.
        speed: (along s, along d), m/s.
        turn: Heading relative to the road, rad.
    """

    name: str
    model: np.ndarray
    paints: np.ndarray
    s: float
    d: float
    speed: tuple[float, float]
    turn: float
    on_crossing: bool

    @property
    def size(self) -> tuple[float, float, float]:
        """Length, width, height, metres."""
        return tuple(n * OBJECT_VOXEL for n in self.model.shape)

    def pose(self, scene: Scene, time: float) -> tuple[float, float, float]:
        """World (x, y, yaw) at ``time`` seconds."""
        s, d = self.s + self.speed[0] * time, self.d + self.speed[1] * time
        x, y, heading = scene.crossing.to_world(scene.axis, s, d) if self.on_crossing else scene.axis.to_world(s, d)
        return float(x), float(y), float(heading + self.turn)


class Placer:
    """Adds actors that keep clear of each other, of the ego vehicle and of what stands there for the whole scene."""

    def __init__(self, scene: Scene, canvas: Canvas, rng: np.random.Generator):
        self.scene = scene
        self.canvas = canvas
        self.blocked = canvas.obstacles()
        self.rng = rng
        self.actors: list[Actor] = []
        self.times = np.linspace(-0.1, scene.duration + 0.1, 5)
        # occupied discs along each box, per time: (n, 3) x, y, radius
        self.discs = [self._ego_discs(time) for time in self.times]
        self.ego_discs = [discs.copy() for discs in self.discs]

    def _ego_discs(self, time: float) -> np.ndarray:
        pose = self.scene.drive.pose(self.scene.axis, time)
        centres = [pose[:2, 3] + pose[:2, 0] * offset for offset in (-0.5, 0.5, 1.5, 2.5, 3.5)]
        return np.array([(*centre, 1.2) for centre in centres])

    def add(
        self,
        name: str,
        s: float,
        d: float,
        speed: tuple[float, float] = (0.0, 0.0),
        turn: float = 0.0,
        on_crossing: bool = False,
    ) -> Actor | None:
        """Adds one object unless it would touch something; returns it or None."""
        model, paints = build_model(name, self.rng)
        actor = Actor(name, model, paints, float(s), float(d), speed, float(turn), on_crossing)
        length, width, _ = actor.size
        count = max(1, int(np.ceil(length / width)))
        offsets = (np.arange(count) + 0.5) / count * length - length / 2
        radius = 0.5 * float(np.hypot(length / count, width))
        # a bus right beside the car would hide half of the scene
        keep_off = 1.0 if name in _LARGE else 0.0
        new = []
        for discs, ego, time in zip(self.discs, self.ego_discs, self.times):
            x, y, yaw = actor.pose(self.scene, time)
            own = np.stack([x + np.cos(yaw) * offsets, y + np.sin(yaw) * offsets, np.full(count, radius)], axis=1)
            gap = np.hypot(discs[:, None, 0] - own[None, :, 0], discs[:, None, 1] - own[None, :, 1])
            if (gap < discs[:, None, 2] + own[None, :, 2]).any():
                return None
            to_ego = np.hypot(ego[:, None, 0] - own[None, :, 0], ego[:, None, 1] - own[None, :, 1])
            if (to_ego < ego[:, None, 2] + own[None, :, 2] + keep_off).any():
                return None
            if self.blocked[self.canvas.cells(*_footprint(x, y, yaw, length, width))].any():
                return None
            new.append(own)
        self.discs = [np.concatenate(pair) for pair in zip(self.discs, new)]
        self.actors.append(actor)
        return actor

    def try_add(self, name: str, draw, attempts: int = 12) -> Actor | None:
        """Calls ``draw()`` for positions until one is free."""
        for _ in range(attempts):
            actor = self.add(name, **draw())
            if actor is not None:
                return actor
        return None


def _footprint(x: float, y: float, yaw: float, length: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (x, y) at most 0.3 m apart that cover a box seen from above."""
    u = np.linspace(-length / 2, length / 2, int(np.ceil(length / 0.3)) + 1)[:, None]
    v = np.linspace(-width / 2, width / 2, int(np.ceil(width / 0.3)) + 1)[None, :]
    return x + np.cos(yaw) * u - np.sin(yaw) * v, y + np.sin(yaw) * u + np.cos(yaw) * v


def place_actors(scene: Scene, canvas: Canvas, view_distance: float, rng: np.random.Generator) -> list[Actor]:
    """Draws all objects of a scene whose street is already built in ``canvas``.

    Rare classes come first and near the drive. Each scene features about two thirds of them, chosen so that two consecutive
    scenes together feature all.
    """
    placer = Placer(scene, canvas, rng)
    start, stop = scene.span(0.8 * scene.reach)
    half = len(FEATURED) // 2
    featured = list(FEATURED[:half] if scene.index % 2 == 0 else FEATURED[half:])
    featured += [name for name in FEATURED if name not in featured and rng.random() < 0.3]
    for name in featured:
        _feature(placer, name, start, stop)
    _parked_cars(placer, view_distance)
    _traffic(placer, view_distance)
    _people(placer, *scene.span(1.5 * scene.reach))
    return placer.actors


def _edge(scene: Scene, side: int) -> float:
    return scene.sides[side].edges(scene.lane_edge)[0]


def _feature(placer: Placer, name: str, start: float, stop: float) -> None:
    scene, rng = placer.scene, placer.rng
    side = int(rng.integers(2))
    sign = 1 if side == 0 else -1
    kerb, verge, _, lots = scene.sides[side].edges(scene.lane_edge)
    heading = 0.0 if sign < 0 else np.pi

    def at(low: float, high: float, turn: float = 0.0, jitter: float = 0.05, speed: float = 0.0):
        return lambda: dict(
            s=rng.uniform(start, stop),
            d=sign * rng.uniform(low, high),
            turn=turn + rng.normal(0, jitter),
            speed=(speed * np.cos(turn), 0.0),
        )

    if name == 'bus' or name == 'truck':
        for _ in range(1 if name == 'bus' else int(rng.integers(1, 3))):
            if not _in_lane(placer, name, start, stop):
                placer.try_add(name, at(kerb - 1.5, kerb - 1.45, heading))
    elif name == 'trailer':
        if rng.random() < 0.5:
            placer.try_add(name, at(kerb - 1.4, kerb - 1.3, heading))
        if not any(actor.name == 'trailer' for actor in placer.actors):
            placer.try_add(name, at(lots + 1.6, lots + 6.0, heading + rng.uniform(-0.4, 0.4)), 30)
    elif name == 'construction_vehicle':
        digger = placer.try_add(name, at(kerb - 0.5, lots + 4.0, rng.uniform(-np.pi, np.pi), 0.3), 30)
        if digger is not None:
            for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
                if rng.random() < 0.7:
                    placer.add('traffic_cone', digger.s + 5.2 * np.cos(angle), digger.d + 3.2 * np.sin(angle))
    elif name in ('barrier', 'traffic_cone'):
        for _ in range(int(rng.integers(1, 3))):
            s, d = rng.uniform(start, stop), sign * (kerb - rng.uniform(0.4, 1.0))
            if rng.random() < 0.25 and scene.median > 0:
                d = 0.0
            spacing = rng.uniform(2.5, 3.2) if name == 'barrier' else rng.uniform(1.5, 4.0)
            for i in range(int(rng.integers(4, 10))):
                placer.add(
                    name, s + i * spacing, d + (0.15 * i if name == 'traffic_cone' else 0.0) * -sign, turn=rng.normal(0, 0.05)
                )
    elif name == 'bicycle':
        for _ in range(int(rng.integers(2, 5))):
            if rng.random() < 0.5:
                placer.try_add(name, at(scene.lane_edge - 0.8, scene.lane_edge - 0.4, heading, 0.05, rng.uniform(2.5, 6.0)))
            else:
                placer.try_add(name, at(verge + 0.3, max(verge + 0.6, lots), rng.uniform(-np.pi, np.pi)))
    elif name == 'motorcycle':
        for _ in range(int(rng.integers(1, 4))):
            if rng.random() < 0.5 or not _in_lane(placer, name, start, stop):
                placer.try_add(name, at(kerb - 0.9, kerb - 0.6, heading + rng.uniform(-0.8, 0.8)))
    else:
        for _ in range(int(rng.integers(3, 7))):
            placer.try_add(
                name, at(verge + 0.4, max(verge + 0.6, lots + 0.5), rng.choice([0, np.pi]), 0.3, rng.uniform(0, 1.6))
            )


def _in_lane(placer: Placer, name: str, start: float, stop: float) -> Actor | None:
    """Puts a moving vehicle into a random lane."""
    scene, rng = placer.scene, placer.rng
    d, direction = scene.lanes[rng.integers(len(scene.lanes))]
    base = scene.drive.speed if direction > 0 else rng.uniform(3, 10)
    turn = 0.0 if direction > 0 else np.pi

    def draw() -> dict:
        speed = direction * max(0.0, base + rng.normal(0, 0.7))
        # oncoming traffic is drawn where it will be in the middle of the scene
        lead = speed * scene.duration / 2 if direction < 0 else 0.0
        return dict(
            s=rng.uniform(start, stop) - lead, d=d + rng.normal(0, 0.2), speed=(speed, 0.0), turn=turn + rng.normal(0, 0.02)
        )

    return placer.try_add(name, draw, 8)


def _parked_cars(placer: Placer, view_distance: float) -> None:
    scene, rng = placer.scene, placer.rng
    start, stop = scene.span(view_distance)
    for side, sign in enumerate((1, -1)):
        occupancy = rng.uniform(0.15, 0.95)
        if scene.sides[side].parking > 0:
            for s in np.arange(start, stop, rng.uniform(5.4, 6.4)):
                if rng.random() < occupancy and not scene.near_crossing(s, 4.0):
                    turn = (0.0 if sign < 0 or rng.random() < 0.2 else np.pi) + rng.normal(0, 0.03)
                    name = 'truck' if rng.random() < 0.05 else 'car'
                    placer.add(name, s + rng.normal(0, 0.2), sign * (_edge(scene, side) - 1.15), turn=turn)
        front = scene.sides[side].edges(scene.lane_edge)[3]
        for s0, s1, kind in scene.lots[side]:
            if kind == 'parking':
                for row in (front + 4.0, front + 12.0):
                    for s in np.arange(s0 + 1.6, s1 - 1.2, 2.8):
                        if rng.random() < 0.6 * occupancy:
                            placer.add('car', s, sign * row, turn=rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.03))
            elif kind in ('yard', 'building') and scene.theme == 'residential' and rng.random() < 0.25:
                placer.add('car', s0 + 1.5, sign * (front + 2.6), turn=sign * np.pi / 2 + rng.normal(0, 0.1))
            elif kind == 'construction':
                middle = (s0 + s1) / 2  # of a lot at the end of the street there may be little left
                placer.add(
                    'construction_vehicle',
                    rng.uniform(min(s0 + 3, middle), max(s1 - 3, middle)),
                    sign * (front + rng.uniform(5, 9)),
                    turn=rng.uniform(-3, 3),
                )


def _traffic(placer: Placer, view_distance: float) -> None:
    scene, rng = placer.scene, placer.rng
    start, stop = scene.span(0.7 * view_distance)
    for _ in range(rng.poisson(rng.uniform(1.0, 3.5) * len(scene.lanes))):
        _in_lane(placer, str(rng.choice(['car', 'truck', 'bus', 'motorcycle'], p=[0.84, 0.08, 0.03, 0.05])), start, stop)
    if scene.crossing is not None:
        for _ in range(rng.poisson(2.5)):
            sign = rng.choice([-1, 1])
            lane = sign * -0.5 * scene.crossing.half_width
            turn = 0.0 if sign > 0 else np.pi
            waiting = rng.random() < 0.7
            edge = scene.lane_edge + max(side.parking for side in scene.sides) + 4.0
            s = -sign * (edge + rng.uniform(0, 25))
            placer.add(
                'car' if rng.random() < 0.85 else 'truck',
                s,
                lane,
                speed=(0.0 if waiting else sign * rng.uniform(2, 7), 0.0),
                turn=turn,
                on_crossing=True,
            )


def _people(placer: Placer, start: float, stop: float) -> None:
    scene, rng = placer.scene, placer.rng
    busy = {'downtown': 7.0, 'residential': 3.0, 'avenue': 4.0, 'industrial': 1.5, 'park': 3.5}[scene.theme]
    for side, sign in enumerate((1, -1)):
        _, verge, walk, lots = scene.sides[side].edges(scene.lane_edge)
        for _ in range(rng.poisson(busy)):
            turn = rng.choice([0.0, np.pi])
            speed = rng.uniform(0.0, 1.7)
            d = sign * rng.uniform(walk + 0.2, max(walk + 0.4, lots - 0.2))
            placer.add('pedestrian', rng.uniform(start, stop), d, (speed * np.cos(turn), 0.0), turn + rng.normal(0, 0.3))
        if rng.random() < 0.3:
            placer.add('bicycle', rng.uniform(start, stop), sign * (verge + 0.4), turn=rng.uniform(-3, 3))
    crossing = scene.crossing
    if crossing is not None and crossing.zebra:
        for _ in range(rng.poisson(2)):
            s = crossing.s + rng.choice([-1, 1]) * (crossing.half_width + 2.9 + rng.normal(0, 0.5))
            sign = rng.choice([-1, 1])
            speed = rng.uniform(0.6, 1.6)
            placer.add('pedestrian', s, rng.uniform(-scene.lane_edge, scene.lane_edge), (0.0, sign * speed), sign * np.pi / 2)
