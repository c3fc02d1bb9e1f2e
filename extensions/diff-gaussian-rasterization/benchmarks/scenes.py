"""Synthetic voxel scenes in the sizes of the supported data sets, as arguments of ``rasterize``."""

import torch

GRIDS = {
    'nuscenes': dict(shape=(200, 200, 16), voxel=0.5, lower=(-50.0, -50.0, -5.0), sigma=0.25, classes=18),
    'kitti360': dict(shape=(256, 256, 32), voxel=0.2, lower=(0.0, -25.6, -2.0), sigma=0.10, classes=19),
}
# logit of the true class above noise of deviation one
BOOSTS = dict(trained=12.0, half=4.3, untrained=0.0)


def make_labels(grid: dict, generator: torch.Generator) -> torch.Tensor:
    """(X, Y, Z) class ids: rough ground and hollow boxes, a few per cent occupied; the last class is empty."""
    x_size, y_size, z_size = grid['shape']
    empty = grid['classes'] - 1
    labels = torch.full(grid['shape'], empty)
    rough = torch.randn(1, 1, x_size // 8 + 1, y_size // 8 + 1, generator=generator) * 0.6
    height = torch.nn.functional.interpolate(rough, size=(x_size, y_size), mode='bilinear')[0, 0]
    height = (height + 4).round().long().clamp(0, z_size - 1)
    ix, iy = torch.meshgrid(torch.arange(x_size), torch.arange(y_size), indexing='ij')
    labels[ix, iy, height] = torch.randint(0, 5, (x_size, y_size), generator=generator)
    for _ in range(220):
        x = int(torch.randint(0, x_size - 12, (1,), generator=generator))
        y = int(torch.randint(0, y_size - 12, (1,), generator=generator))
        size = torch.randint(3, 10, (3,), generator=generator).tolist()
        box = labels[x : x + size[0], y : y + size[1], int(height[x, y]) : int(height[x, y]) + size[2]]
        shell = torch.ones(box.shape, dtype=torch.bool)
        shell[1:-1, 1:-1] = False
        box[shell] = torch.randint(5, empty, (1,), generator=generator)
    return labels


def make_camera(dataset: str, view: str, scale: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """View matrix (4, 4), intrinsics (3, 3) and image size of the front or bird's-eye camera; ``scale`` divides the size."""
    grid = GRIDS[dataset]
    if view == 'bev':
        distance = grid['shape'][0] * grid['voxel']
        E = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, distance], [0, 0, 0, 1]])
        return E, torch.tensor([[400.0, 0, 200 if dataset == 'nuscenes' else 0], [0, 400, 200], [0, 0, 1]]), 400, 400
    if dataset == 'nuscenes':
        E = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        K, width, height = torch.tensor([[1260.0, 0, 800], [0, 1260, 450], [0, 0, 1]]), 1600, 900
    else:
        E = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
        K, width, height = torch.tensor([[552.5, 0, 682], [0, 552.5, 238.8], [0, 0, 1]]), 1408, 376
    K[:2] /= scale
    return E, K, width // scale, height // scale


def make_scene(dataset: str, view: str, kind: str, scale: int = 1, seed: int = 0) -> dict:
    """Arguments of ``rasterize``: ``kind`` is 'gt' (occupied voxels, opacity 1, labels) or a stage of training."""
    grid = GRIDS[dataset]
    generator = torch.Generator().manual_seed(seed)
    labels = make_labels(grid, generator).reshape(-1)
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid['shape']), indexing='ij'), -1).reshape(-1, 3)
    means = (index + 0.5) * grid['voxel'] + torch.tensor(grid['lower'])
    E, K, width, height = make_camera(dataset, view, scale)
    x, y, z = (means @ E[:3, :3].T + E[:3, 3]).unbind(1)
    u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
    seen = (z > 0) & (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)
    classes, empty = grid['classes'], grid['classes'] - 1
    if kind == 'gt':
        seen &= labels != empty
        features, opacities = labels[seen], torch.ones(int(seen.sum()))
    else:
        logits = torch.randn(len(means), classes, generator=generator)
        logits[torch.arange(len(means)), labels] += BOOSTS[kind]
        features = logits.softmax(-1)[seen]
        free = features[:, empty]
        opacities = 1 - torch.where(free < 0.5, free**2, 1 - (1 - free) ** 2)
    count = len(opacities)
    return dict(
        means=means[seen],
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4),
        scales=torch.tensor([[grid['sigma']]]).expand(count, 3),
        opacities=opacities,
        features=features,
        viewmats=E[None],
        Ks=K[None],
        width=width,
        height=height,
        background=torch.eye(classes)[empty],
    )
