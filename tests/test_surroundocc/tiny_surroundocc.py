"""A small oblong model with two volumes, and random features and cameras, for the tests of this folder."""

import torch

from projects.occ.structures import VoxelGrid
from projects.surroundocc import SurroundOccHead, SurroundOccViewEncoder

GRID = VoxelGrid(
    (-8, -4, -1, 8, 4, 3), 1, (16, 8, 4), 'lidar', free_index=0, class_names=('free', 'car', 'road', 'tree', 'wall')
)
SCALES = (2, 4)
EMBED_DIMS = (16, 32)
CELLS = ((8, 4, 2), (4, 2, 1))
INPUT_WH = (64, 32)
SHAPES = ((4, 8), (2, 4))


def build_encoder(**options):
    defaults = dict(
        grid=GRID,
        scales=SCALES,
        in_channels=(8, 12),
        embed_dims=EMBED_DIMS,
        num_layers=(1, 2),
        num_cams=2,
        cross_attn=dict(num_heads=4, num_points=(2, 4)),
    )
    return SurroundOccViewEncoder(**{**defaults, **options})


def build_head(**options):
    defaults = dict(
        grid=GRID,
        scales=SCALES,
        embed_dims=EMBED_DIMS,
        channels=(16, 16, 16, 16, 16),
        strides=(1, 2, 1, 2, 1),
        out_indices=(0, 2, 4),
    )
    return SurroundOccHead(**{**defaults, **options})


def build_inputs(batch_size=1, num_cams=2, seed=0):
    """Features of both levels and cameras that look along +x and -x, slightly different for every sample."""
    generator = torch.Generator().manual_seed(seed)
    feats = [
        torch.randn(batch_size, num_cams, channels, h, w, generator=generator) for channels, (h, w) in zip((8, 12), SHAPES)
    ]
    intrinsics = torch.tensor([[30.0, 0, 32, 0], [0, 30, 16, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    views = []
    for i in range(num_cams):
        sign = 1.0 if i % 2 == 0 else -1.0
        views.append(torch.tensor([[0, -sign, 0, 0.1 * i], [0, 0, -1, 1], [sign, 0, 0, 0], [0, 0, 0, 1]]))
    shift = torch.eye(4).repeat(batch_size, 1, 1, 1)
    shift[:, 0, 1, 3] = torch.arange(batch_size) * 1.5
    ref2img = (intrinsics @ torch.stack(views)) @ shift
    sizes = torch.tensor(INPUT_WH, dtype=torch.float32).expand(batch_size, num_cams, 2)
    return feats, dict(ref2img=ref2img, img_wh=sizes, input_wh=INPUT_WH)


def build_volumes(batch_size=1):
    return [torch.randn(batch_size, dims, *cells) for dims, cells in zip(EMBED_DIMS, CELLS)]


def randomize(module, scale=0.3):
    """Leaves no parameter at a start value that hides mistakes (zero offsets, equal weights)."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module.eval()
