"""Layout of a street: its axis, cross-section, lots, crossing, and the drive of the ego vehicle."""

from dataclasses import dataclass, field

import numpy as np

from .config import SyntheticConfig
from .geometry import rotation_zyx

FRAME_TIME = 0.5  # seconds between key frames

THEMES = ('downtown', 'residential', 'avenue', 'industrial', 'park')
# probabilities of lot kinds: building, park, parking, yard, construction
_LOTS = {
    'downtown': (0.80, 0.06, 0.06, 0.04, 0.04),
    'residential': (0.55, 0.22, 0.03, 0.18, 0.02),
    'avenue': (0.45, 0.30, 0.12, 0.08, 0.05),
    'industrial': (0.45, 0.10, 0.25, 0.08, 0.12),
    'park': (0.12, 0.68, 0.06, 0.12, 0.02),
}
LOT_KINDS = ('building', 'park', 'parking', 'yard', 'construction')


@dataclass(frozen=True)
class Axis:
    """Centre line of the street: a circular arc (or a straight line) through the origin, heading along +x there.

    Street coordinates: s along the axis, d to its left, metres.

    Args:
        curvature: 1/m, positive = left turn.
    """

    curvature: float

    def to_world(self, s, d):
        """Street coordinates -> (x, y, heading)."""
        k = self.curvature
        heading = k * np.asarray(s, dtype=np.float64)
        if abs(k) < 1e-9:
            x, y = np.asarray(s, dtype=np.float64), np.zeros_like(heading)
        else:
            x, y = np.sin(heading) / k, (1 - np.cos(heading)) / k
        return x - d * np.sin(heading), y + d * np.cos(heading), heading

    def to_street(self, x, y):
        """World -> (s, d)."""
        k = self.curvature
        if abs(k) < 1e-9:
            return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        radius = 1 / k
        sign = np.sign(k)
        dy = y - radius
        return np.arctan2(sign * x, -sign * dy) * radius, radius - sign * np.hypot(x, dy)


@dataclass(frozen=True)
class Side:
    """Cross-section of one side, from the lane edge outwards; widths in metres."""

    parking: float
    verge: float
    walk: float

    def edges(self, lane_edge: float) -> tuple[float, float, float, float]:
        """Distances from the axis at which kerb, verge, walk and lots begin."""
        kerb = lane_edge + self.parking
        verge = kerb + 0.3
        walk = verge + self.verge
        return kerb, verge, walk, walk + self.walk


@dataclass(frozen=True)
class Crossing:
    """A straight road across the street.

    Args:
        s: Position on the axis.
        skew: Deviation from a right angle, rad.
        half_width: Half of its carriageway, metres.
        walk: Width of its pavements, metres.
        zebra: Whether zebra crossings lead over the street.
    """

    s: float
    skew: float
    half_width: float
    walk: float
    zebra: bool

    def pose(self, axis: Axis) -> tuple[float, float, float]:
        """Point on the axis and heading of the crossing road (towards the left of the street)."""
        x, y, heading = axis.to_world(self.s, 0.0)
        return float(x), float(y), float(heading + np.pi / 2 + self.skew)

    def to_local(self, axis: Axis, x, y):
        """World -> (along the crossing road, to its left)."""
        x0, y0, heading = self.pose(axis)
        c, s = np.cos(heading), np.sin(heading)
        return c * (x - x0) + s * (y - y0), -s * (x - x0) + c * (y - y0)

    def to_world(self, axis: Axis, a, b):
        """(Along the crossing road, to its left) -> (x, y, heading)."""
        x0, y0, heading = self.pose(axis)
        c, s = np.cos(heading), np.sin(heading)
        return x0 + c * a - s * b, y0 + s * a + c * b, heading


@dataclass(frozen=True)
class Drive:
    """Motion of the ego vehicle in street coordinates.

    Args:
        start: s at time 0, metres.
        speed: Initial speed, m/s.
        acceleration: m/s^2.
        lane: Lateral position, metres.
        sway: Amplitude (m), angular frequency (rad/s) and phase of the lateral motion.
        tilt: Amplitudes of roll and pitch (rad) and their phases.
    """

    start: float
    speed: float
    acceleration: float
    lane: float
    sway: tuple[float, float, float]
    tilt: tuple[float, float, float, float]

    def pose(self, axis: Axis, time: float) -> np.ndarray:
        """Ego to world, (4, 4), at ``time`` seconds; z = 0 as in nuScenes, roll and pitch small."""
        amplitude, omega, phase = self.sway
        s = self.start + self.speed * time + 0.5 * self.acceleration * time**2
        speed = max(0.5, self.speed + self.acceleration * time)
        d = self.lane + amplitude * np.sin(omega * time + phase)
        x, y, heading = axis.to_world(s, d)
        yaw = heading + np.arctan2(amplitude * omega * np.cos(omega * time + phase), speed)
        roll_amplitude, pitch_amplitude, roll_phase, pitch_phase = self.tilt
        roll = roll_amplitude * np.sin(1.3 * time + roll_phase)
        pitch = pitch_amplitude * np.sin(1.7 * time + pitch_phase)
        pose = np.eye(4)
        pose[:3, :3] = rotation_zyx(float(yaw), pitch, roll)
        pose[:2, 3] = x, y
        return pose


@dataclass
class Scene:
    """Layout of one scene.

    Attributes:
        index: Number of the scene in the data set, from 0; training scenes first.
        theme: One of ``THEMES``.
        axis, sides (left, right), crossing, drive: See there.
        lanes: Centres d of the lanes and +1 (along s) or -1 (against), one pair per lane.
        lane_width: metres.
        lane_edge: d of the outer lane edge, symmetric, metres.
        median: Half width of the strip between the directions, 0 = none.
        median_green: Whether it is grass instead of stone.
        lots: For left and right: (s0, s1, kind) along the street.
        duration: Time of the last key frame, seconds.
        reach: Half the smallest horizontal extent of the label grids, metres.
        light: 'day', 'overcast' or 'dusk'.
        to_global: World -> global frame of the data set, (4, 4).
    """

    index: int
    theme: str
    axis: Axis
    sides: tuple[Side, Side]
    crossing: Crossing | None
    drive: Drive
    lanes: list[tuple[float, int]]
    lane_width: float
    lane_edge: float
    median: float
    median_green: bool
    duration: float
    reach: float
    light: str
    to_global: np.ndarray
    lots: tuple[list, list] = field(default_factory=lambda: ([], []))

    def span(self, margin: float) -> tuple[float, float]:
        """Stretch of s within ``margin`` metres of the drive."""
        travelled = self.drive.speed * self.duration + 0.5 * self.drive.acceleration * self.duration**2
        return self.drive.start - margin, self.drive.start + travelled + margin

    def near_crossing(self, s: float, margin: float) -> bool:
        """Whether s lies within ``margin`` of the crossing's pavements."""
        if self.crossing is None:
            return False
        return abs(s - self.crossing.s) < self.crossing.half_width + self.crossing.walk + margin


def scene_rng(config: SyntheticConfig, index: int, *stream: int) -> np.random.Generator:
    """Random numbers that depend on the seed, the scene and the purpose alone."""
    return np.random.default_rng([config.seed, index, *stream])


def draw_scene(config: SyntheticConfig, index: int) -> Scene:
    """Draws the layout of scene ``index``."""
    rng = scene_rng(config, index, 0)
    theme = THEMES[rng.integers(len(THEMES))]
    curvature = float(rng.choice([-1, 1]) / rng.uniform(70, 220)) if rng.random() < 0.5 else 0.0
    lane_width = float(rng.uniform(2.9, 3.6))
    per_side = 2 if theme in ('avenue', 'downtown') and rng.random() < 0.6 else 1
    median = float(rng.uniform(0.6, 1.6)) if per_side == 2 and rng.random() < 0.6 else 0.0
    one_way = per_side == 1 and rng.random() < 0.25
    lanes = []
    for i in range(per_side):
        offset = median + (i + 0.5) * lane_width
        lanes += [(-offset, 1), (offset, 1 if one_way else -1)]
    lane_edge = median + per_side * lane_width
    sides = tuple(
        Side(
            parking=float(rng.uniform(2.0, 2.5)) if rng.random() < 0.55 else 0.0,
            verge=float(rng.uniform(0.8, 2.6)) if rng.random() < 0.5 else 0.0,
            walk=float(rng.uniform(1.4, 4.0)) if rng.random() < 0.85 else 0.0,
        )
        for _ in range(2)
    )
    duration = FRAME_TIME * (config.frames - 1)
    speed = float(rng.uniform(0.5, 3.0) if rng.random() < 0.2 else rng.uniform(3.5, 11.0))
    acceleration = float(np.clip(rng.normal(0, 0.5), -0.6 * speed / max(duration, 1.0), 1.0))
    own_lanes = [d for d, direction in lanes if direction > 0]
    drive = Drive(
        start=0.0,
        speed=speed,
        acceleration=acceleration,
        lane=float(rng.choice(own_lanes) + rng.normal(0, 0.25)),
        sway=(float(rng.uniform(0.0, 0.09) * speed), float(rng.uniform(0.5, 1.0)), float(rng.uniform(0, 2 * np.pi))),
        tilt=(
            float(np.radians(rng.uniform(0.2, 0.9))),
            float(np.radians(rng.uniform(0.2, 0.9))),
            float(rng.uniform(0, 2 * np.pi)),
            float(rng.uniform(0, 2 * np.pi)),
        ),
    )
    travelled = speed * duration + 0.5 * acceleration * duration**2
    # street coordinates are unique for less than half a turn to either side
    limit = 2.2 / (travelled + config.view_distance + 20)
    axis = Axis(float(np.clip(curvature, -limit, limit)))
    crossing = None
    if rng.random() < 0.5:
        crossing = Crossing(
            s=float(rng.uniform(-14.0, travelled + 24.0)),
            skew=float(rng.normal(0, 0.12)),
            half_width=float(rng.uniform(3.0, 6.5)),
            walk=float(rng.uniform(1.5, 3.0)),
            zebra=bool(rng.random() < 0.7),
        )
    yaw = float(rng.uniform(-np.pi, np.pi))
    to_global = np.eye(4)
    to_global[:3, :3] = rotation_zyx(yaw, 0.0, 0.0)
    to_global[:2, 3] = rng.uniform(300, 1800, 2)
    light = config.camera.light
    if light == 'mixed':
        light = str(rng.choice(['day', 'overcast', 'dusk'], p=[0.6, 0.25, 0.15]))
    reach = min(min(-grid.lower[0], -grid.lower[1], grid.upper[0], grid.upper[1]) for grid in config.grids.values())
    scene = Scene(
        index=index,
        theme=theme,
        axis=axis,
        sides=sides,
        crossing=crossing,
        drive=drive,
        lanes=lanes,
        lane_width=lane_width,
        lane_edge=lane_edge,
        median=median,
        median_green=bool(rng.random() < 0.5),
        duration=duration,
        reach=max(8.0, reach),
        light=light,
        to_global=to_global,
    )
    scene.lots = tuple(_draw_lots(scene, config.view_distance, rng) for _ in range(2))
    return scene


def _draw_lots(scene: Scene, view_distance: float, rng: np.random.Generator) -> list[tuple[float, float, str]]:
    """Cuts one side of the street into lots, without the stretch taken by the crossing."""
    start, stop = scene.span(view_distance)
    lots = []
    s = start - rng.uniform(0, 10)
    while s < stop:
        length = rng.uniform(9, 24)
        kind = str(rng.choice(LOT_KINDS, p=_LOTS[scene.theme]))
        if not any(scene.near_crossing(v, 0.5) for v in np.linspace(s, s + length, 12)):
            lots.append((float(s), float(s + length), kind))
        elif not scene.near_crossing(s, 0.5) and s + 6 < scene.crossing.s:
            end = scene.crossing.s - scene.crossing.half_width - scene.crossing.walk - 1.0
            if end - s > 5:
                lots.append((float(s), float(end), kind))
            s = scene.crossing.s + scene.crossing.half_width + scene.crossing.walk + 1.0
            continue
        s += length
    return lots
