"""Random scenes of the ray marcher, for tests and the fuzz script."""

import math

import numpy as np
import torch

from gaussian_rasterization import MarchSettings, MipContraction

OUTPUTS = ('features', 'depth', 'alpha', 'transmittance', 'distortion', 'weights')


def make_march_scene(seed, channels=None, rays=None, samples=None):
    """Arguments of ``march_rays``, float32; forms, samplings and thresholds by turns.

    Some rays start outside or miss the grid, some densities are zero and some opaque.
    """
    rng = np.random.default_rng(seed)
    batch = int(rng.integers(1, 3))
    shape = tuple(int(n) for n in rng.integers(1, 9, 3)) if seed % 5 == 0 else tuple(int(n) for n in rng.integers(5, 24, 3))
    channels = int(rng.choice([0, 1, 3, 8, 17, 18])) if channels is None else channels
    rays = int(rng.integers(1, 40)) if rays is None else rays
    form = ('nerf', 'dvgo', 'prob')[seed % 3]
    voxel = rng.uniform(0.2, 0.7, 3)
    lower = rng.uniform(-6, 0, 3)
    extent = voxel * shape
    options = dict(form=form, align_corners=bool(rng.integers(2)), last_step=['repeat', 'inf'][rng.integers(2)])
    options['depth_mode'] = ['range', 'contracted'][rng.integers(2)]
    options['distortion'] = [None, 'width', 'count', 0.02][rng.integers(4)]
    options['weights'] = bool(rng.integers(2))
    if rng.random() < 0.3:
        options.update(alpha_min=1e-7, transmittance_min=1e-3, weight_min=1e-7)
    sampling = ('uniform', 'mip360', 'edges')[seed // 3 % 3]
    if sampling == 'mip360':
        limit = float(min(extent[:2]) / 2)
        contraction = MipContraction(tuple(lower + extent / 2), 0.8 * limit, limit, 0.95 * 0.5 * voxel[0])
        options['contraction'] = contraction
        t = contraction.distances(shape[0], 0.5)
    else:
        count = int(rng.integers(2, 70)) if samples is None else samples
        t = torch.linspace(0.05, float(np.linalg.norm(extent)), count)
    settings = MarchSettings(**options)
    origins = lower + extent * rng.uniform(-0.2, 1.2, (batch, rays, 3))
    directions = rng.normal(size=(batch, rays, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    if sampling == 'edges':
        count = int(rng.integers(1, 50)) if samples is None else samples
        t = torch.tensor(np.cumsum(rng.uniform(0.01, 0.4, (batch, rays, count + 1)), -1), dtype=torch.float32)
    walls = rng.random((batch, *shape)) < 0.1
    density = rng.uniform(0, 0.5, (batch, *shape)) * (rng.random((batch, *shape)) < 0.7)
    density[walls] = rng.uniform(1, 40, walls.sum())
    if form == 'dvgo':
        density = density + rng.uniform(0, 12, density.shape)
    elif form == 'prob':
        density = density - 5

    def tensor(array):
        return torch.tensor(np.asarray(array), dtype=torch.float32)

    return dict(
        density=tensor(density),
        features=tensor(rng.normal(size=(batch, *shape, channels))),
        lower=tensor(lower),
        voxel_size=tensor(voxel),
        origins=tensor(origins),
        directions=tensor(directions),
        t=t,
        settings=settings,
    )


def unstable_rays(march, scene):
    """Rays (B, R) whose result hangs on a threshold: float64 values that move with the thresholds."""
    settings = scene['settings']
    if not (settings.alpha_min or settings.transmittance_min or settings.weight_min):
        return torch.zeros(scene['origins'].shape[:2], dtype=torch.bool)
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    outs = []
    for factor in (0.999, 1.001):
        options = {k: getattr(settings, k) for k in settings.__dataclass_fields__}
        options = {k: v * factor if k in ('alpha_min', 'transmittance_min', 'weight_min') else v for k, v in options.items()}
        outs.append(march(**dict(exact, settings=MarchSettings(**options)), backend='reference'))
    return (outs[0].count != outs[1].count) | ((outs[0].transmittance - outs[1].transmittance).abs() > 1e-9)


def probe(out, mask, seed=0):
    """A random linear function of all outputs of the rays in ``mask`` (B, R)."""
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for name in OUTPUTS:
        value = getattr(out, name)
        if value is None or value.numel() == 0:
            continue
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
        total = total + (weight * value * mask.to(value.device).view(*mask.shape, *[1] * (value.dim() - 2))).sum()
    return total


def street(seed=0, shape=(200, 200, 16), channels=17, trained=True):
    """A volume like one of Occ3D with raw densities of the form ``'dvgo'``, and LiDAR-like rays from cameras of seven frames.

    Returns:
        Arguments of ``march_rays`` but settings; 'mip360' positions; ``rays`` (1, 38400).
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    x, y, z = (torch.arange(n) for n in shape)
    height = 0.2 * torch.sin(x[:, None] / 23.0) + 0.2 * torch.cos(y[None] / 31.0)
    solid = z[None, None] <= (2 + height)[..., None]  # ground, about 0 m
    for _ in range(220):
        size = rng.uniform([2, 2, 2], [30, 14, 14]) if rng.random() < 0.3 else rng.uniform([2, 2, 2], [11, 5, 6])
        corner = rng.uniform(0, 1, 2) * (np.array(shape[:2]) - size[:2])
        middle = corner + size[:2] / 2 - np.array(shape[:2]) / 2
        if abs(middle[1]) < 14 + size[1] / 2 and abs(middle[0]) < 90:  # the road stays free
            continue
        a, b = corner.astype(int), (corner + size[:2]).astype(int)
        solid[a[0] : b[0], a[1] : b[1], : int(2 + size[2])] = True
    density = torch.rand(shape, generator=generator) * 0.4
    if trained:
        density = torch.where(solid, 17 + 4 * torch.rand(shape, generator=generator), density)
    features = torch.randn((*shape, channels), generator=generator)
    lower, voxel = (-40.0, -40.0, -1.0), (0.4, 0.4, 0.4)
    contraction = MipContraction.of_grid(lower, voxel, shape)
    rays = 38400
    frame = rng.integers(-3, 4, rays)
    camera = rng.integers(0, 6, rays)
    yaw = camera * (math.pi / 3) + rng.uniform(-0.55, 0.55, rays)
    pitch = np.radians(rng.choice(np.linspace(-28, 9, 32), rays))
    origins = np.stack([frame * 3.0 + np.cos(camera * math.pi / 3), np.sin(camera * math.pi / 3), np.full(rays, 1.5)], -1)
    directions = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], -1)
    return dict(
        density=density[None],
        features=features[None],
        lower=lower,
        voxel_size=voxel,
        origins=torch.tensor(origins, dtype=torch.float32)[None],
        directions=torch.tensor(directions, dtype=torch.float32)[None],
        t=contraction.distances(shape[0]),
    ), contraction
