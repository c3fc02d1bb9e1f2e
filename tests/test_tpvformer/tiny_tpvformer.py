"""A small oblong model, one camera pair and random features for the tests of this folder."""

import torch

from projects.occ.structures import VoxelGrid
from projects.tpvformer import TPVFormerOccHead, TPVFormerViewEncoder

GRID = VoxelGrid(
    (-8, -6, -1, 8, 6, 3), (1, 1, 0.5), (16, 12, 8), 'lidar', free_index=0, class_names=('free', 'car', 'road', 'tree', 'wall')
)
INPUT_WH = (64, 32)
SHAPES = [(4, 8), (2, 4)]


def build_encoder(**options):
    defaults = dict(
        grid=GRID,
        embed_dims=16,
        num_cams=2,
        num_levels=2,
        num_layers=2,
        num_anchors=(4, 4, 8),
        self_attn=dict(num_heads=4),
        cross_attn=dict(num_heads=4, num_points=(8, 4, 16)),
    )
    return TPVFormerViewEncoder(**{**defaults, **options})


def build_head(**options):
    return TPVFormerOccHead(**{**dict(grid=GRID, in_dims=16, hidden_dims=32, out_dims=24, with_cp=False), **options})


def build_inputs(batch_size=1, num_cams=2, seed=0):
    """Features of all levels and cameras that look along +x and -x, slightly different for every sample."""
    generator = torch.Generator().manual_seed(seed)
    feats = [torch.randn(batch_size, num_cams, 16, h, w, generator=generator) for h, w in SHAPES]
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


def randomize(module, scale=0.3):
    """Leaves no parameter at a start value that hides mistakes (zero offsets, equal weights)."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module.eval()
