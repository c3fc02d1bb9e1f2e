"""Ray marching against the published implementations: RenderOcc's rays and losses, OccNeRF's and GaussianOcc's renderers."""

import json

import numpy as np
import pytest
import torch
from published_rays import NAMES, published_rays, published_supervision, ray_grid

from projects.occ.structures import Cameras, ContractedGrid, OccBatch, OccField, OccPrediction, Rays
from projects.rendering import DensityField, MarchRenderer
from projects.rendering.losses import REGULARIZERS
from projects.rendering.march_contracted import ContractedSampling


@pytest.fixture(scope='module')
def golden(golden_dir):
    return torch.load(golden_dir / 'bevstereo_occ_small.pt', weights_only=True)['cases']


def head_case(case):
    """Supervision, prediction with gradients and batch of a case of the ray head alone."""
    config = json.loads(case['config_json'])
    head, inputs = config['nerf_head'], case['inputs']
    shape = inputs['density'].shape[1:]
    pc_range, world = head['point_cloud_range'], config['world_len']
    # the published head samples as densely as a square grid of `world_len` voxels asks for, whatever the volume is
    sampling = ray_grid(pc_range, (world, world, 16))
    field = DensityField(ray_grid(pc_range, shape))
    density, semantic = (inputs[name].clone().requires_grad_() for name in ('density', 'semantic'))
    logits = torch.cat([semantic, torch.zeros_like(semantic[..., :1])], -1).movedim(-1, 1)
    flips = inputs['bda'] if 'bda' in inputs else torch.eye(3).expand(len(density), 3, 3)
    batch = OccBatch(
        Cameras(*(torch.eye(n).expand(len(density), 1, n, n) for n in (4, 3)), torch.ones(len(density), 1, 2).long()),
        rays=published_rays(inputs['rays'], flips),
        tokens=['a', 'b'][: len(density)],
    )
    supervision = published_supervision(sampling, head['radius'], case['constants']['class_weights'].tolist(), field)
    return supervision, OccPrediction([logits], density=density), batch, semantic


@pytest.mark.parametrize('name', ['nerf_default', 'nerf_small'])
def test_ray_head(golden, name):
    """Rendered rays, all four losses and the gradients of density and classes."""
    case = golden[name]
    supervision, prediction, batch, semantic = head_case(case)
    views = supervision.views(batch)['ray']
    rendered = supervision.renderer(supervision.field(prediction), views)
    for b, theirs in enumerate(case['per_sample']):
        rows = views.valid[b]
        assert int(rows.sum()) == len(theirs['render_depth'])
        radius = json.loads(case['config_json'])['nerf_head']['radius']
        torch.testing.assert_close(rendered.depth[b, rows] + 1e-7 * radius, theirs['render_depth'], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rendered.features[b, rows][:, :17], theirs['render_semantic'], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rendered.transmittance[b, rows], theirs['T_last'], rtol=1e-4, atol=1e-5)
    losses = supervision.loss(prediction, batch)
    assert {NAMES[k]: v.item() for k, v in losses.items()} == pytest.approx(case['losses'], rel=1e-4)
    sum(losses.values()).backward()
    for ours, theirs in ((prediction.density.grad, case['grad_density']), (semantic.grad, case['grad_semantic'])):
        assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_whole_march(golden_dir):
    """The chain of the formula cases, correct and compatible, float64."""
    with np.load(golden_dir / 'rendering_supervision_small.npz') as file:
        golden = {name: torch.tensor(file[name]) for name in file.files if name.startswith('march/')}
    shape = golden['march/density_xyz'].shape
    pc_range = golden['march/pc_range'].tolist()
    assert golden['march/scene_center'].tolist() == [(a + b) / 2 for a, b in zip(pc_range[:3], pc_range[3:])]
    grid = ray_grid(pc_range, shape)
    logits = torch.cat([golden['march/logits_xyzc'], torch.zeros(*shape, 14).double()], -1).movedim(-1, 0)[None]
    field = DensityField(grid)(OccPrediction([logits], density=golden['march/density_xyz'][None]))
    length = golden['march/d'].norm(dim=-1, keepdim=True)
    rays = Rays(golden['march/o'][None], (golden['march/d'] / length)[None], (1 / length).T, torch.ones(1, 9).bool())
    radius = float(golden['march/radius'])
    compatible = dict(align_corners=True, depth_mode='contracted', z_bound='ratio')
    compatible.update(alpha_min=1e-7, weight_min=1e-7, transmittance_min=1e-3)
    for variant, options in (('fixed', {}), ('compat', compatible)):
        renderer = MarchRenderer(grid, form='dvgo', sampling='mip360', radius=radius, depth='range', **options)
        out = renderer(field, rays)
        tolerance = dict(rtol=1e-9, atol=1e-12)
        offset = 1e-7 * radius if variant == 'compat' else 0
        torch.testing.assert_close(out.depth[0] + offset, golden[f'march/{variant}/depth'], **tolerance)
        torch.testing.assert_close(out.features[0, :, :4], golden[f'march/{variant}/sem'], **tolerance)
        torch.testing.assert_close(out.transmittance[0], golden[f'march/{variant}/T_last'], **tolerance)
        if variant == 'fixed':
            torch.testing.assert_close(out.alpha[0], golden['march/fixed/acc'], **tolerance)
        z = MarchRenderer(grid, form='dvgo', sampling='mip360', radius=radius, **options)(field, rays).depth
        torch.testing.assert_close(z, out.depth / length.T, **tolerance)


@pytest.mark.parametrize('bound, name', [('grid', 'fixed'), ('ratio', 'compat')])
def test_where_contracted_points_are_looked_up(golden_dir, bound, name):
    """RenderOcc's grid: contracted points over the grid's extent, with its true height and with the published one."""
    with np.load(golden_dir / 'rendering_supervision_small.npz') as file:
        points, wanted = (torch.tensor(file[f'mip360/{key}']) for key in ('pts', f'u_{name}'))
    grid = ray_grid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16))
    lower, size = MarchRenderer(grid, form='dvgo', sampling='mip360', radius=39.0, z_bound=bound).bounds(grid)
    places = 39 * points + points.new_tensor([0, 0, 2.2])
    extent = points.new_tensor(size) * points.new_tensor(grid.shape)
    torch.testing.assert_close(2 * (places - points.new_tensor(lower)) / extent - 1, wanted, rtol=1e-9, atol=1e-9)


def test_samples_on_a_contracted_grid(golden_dir):
    """Number, depths and voxel edge of OccNeRF's rays on its published grid."""
    with np.load(golden_dir / 'rendering_supervision_small.npz') as file:
        golden = {name: torch.tensor(file[name]) for name in file.files if name.startswith('contract/')}
    x0, x1, y0, y1, z0, z1 = golden['contract/roi'].tolist()
    assert (x0, x1, y0, y1, z0, z1) in [(-40, 40, -40, 40, -1, 5.4), (-40, -40, -1, 40, 40, 5.4)]
    grid = ContractedGrid((-40, -40, -1, 40, 40, 5.4), (300, 300, 24), float(golden['contract/ratio']))
    depths, voxel = ContractedSampling().depths(grid)
    assert len(depths) == int(golden['contract/N_samples'])
    assert voxel == pytest.approx(float(golden['contract/voxel_size']), rel=1e-9)
    torch.testing.assert_close(depths, golden['contract/Zval'], rtol=1e-9, atol=1e-9)


@pytest.fixture(scope='module')
def contracted(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    config = json.loads(case['config_json'])
    x0, x1, y0, y1, z0, z1 = config['real_size']
    shape = config['X'], config['Y'], config['Z']
    return case, config, ContractedGrid((x0, y0, z0, x1, y1, z1), shape, config['contracted_ratio'])


@pytest.mark.parametrize('form', ['prob', 'density'])
def test_contracted_renderers(contracted, form):
    """OccNeRF's and GaussianOcc's ray marchers: pictures, regularisers, gradient of the volume."""
    case, config, grid = contracted
    theirs = case['ray_march'][form]
    volume = case['taps']['logits_volume'].clone()
    free = volume[:, 17]
    volume[:, 17] = free + 3.0 if form == 'prob' else free * 0.05
    volume.requires_grad_()
    density = -volume[:, 17] if form == 'prob' else volume[:, 17]
    field = OccField(grid, volume[:, 17].sigmoid(), volume, torch.zeros(18), density=density)
    cams = case['inputs']['cam2ego']
    cameras = Cameras(
        torch.linalg.inv(cams)[None],
        case['inputs']['K_render'][None, :, :3, :3],
        torch.tensor([config['w'], config['h']]).expand(1, config['N'], 2),
    )
    renderer = MarchRenderer(
        ray_grid((-40, -40, -1, 40, 40, 5.4), (200, 200, 16)),
        form='prob' if form == 'prob' else 'nerf',
        sampling='contracted',
        distortion='width',
        contracted=dict(group=4, jitter=0.0),
    ).train()
    zval, _ = renderer.contracted.depths(grid)
    torch.testing.assert_close(zval.float()[None], case['ray_march']['Zval'], rtol=1e-5, atol=1e-4)
    out = renderer(field, cameras)
    depth = out.depth[0].clamp(0.1, 200)
    # one pixel has a sample on the threshold of being skipped
    same = ((depth - theirs['depth'][:, 0]).abs() < 5e-3) & ((out.features[0] - theirs['semantic']).abs().amax(-1) < 1e-4)
    assert (~same).sum() <= 1
    entropy, distortion = (0.01 * REGULARIZERS[name](out, field) for name in ('last_entropy', 'distortion'))
    assert entropy.item() == pytest.approx(theirs['reg']['loss_entropy_last'].item(), rel=1e-3)
    assert distortion.item() == pytest.approx(theirs['reg']['loss_distortion'].item(), rel=1e-4)
    probes = theirs['probe_depth'][:, 0].float(), theirs['probe_semantic'].float()
    total = (depth * probes[0]).sum() + (out.features[0] * probes[1]).sum() + entropy + distortion
    error = (torch.autograd.grad(total, volume)[0] - theirs['grad_volume']).abs() / theirs['grad_volume'].abs().max()
    # of the one pixel's ray
    assert (error > 1e-4).sum() <= 24 and error.max() < 0.02
