"""The example of docs/add_a_model.md: it trains by config and in a bare loop, and the document shows the files as they are."""

import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from projects.example_model import bare_loop
from projects.example_model.voxel_network import ProjectAndAverage
from projects.occ.structures import Cameras, OccBatch, OccDataSample

CONFIG = 'projects/example_model/configs/voxel-network_synthetic-occ3d{}.py'
RENDERED = {f'loss_render_{view}_{what}' for view in ('cam', 'bev') for what in ('sem', 'depth')}


def test_bare_loop_learns():
    history = bare_loop.train(steps=30, scenes=2)
    assert set(history[0]) == {'loss_voxel', *RENDERED}
    assert all(math.isfinite(value) for row in history for value in row.values())
    for name in ('loss_voxel', 'loss_render_cam_sem', 'loss_render_bev_sem', 'loss_render_cam_depth'):
        first, last = (sum(row[name] for row in part) for part in (history[:5], history[-5:]))
        assert last < 0.7 * first, name


def test_bare_loop_needs_none_of_the_mm_packages(repo_root):
    code = (
        'import sys; import projects.example_model.bare_loop as b; b.train(steps=1, scenes=1); '
        'print([m for m in sys.modules if m.split(".")[0] in ("mmengine", "mmcv", "mmdet", "mmdet3d")])'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == '[]', done.stdout + done.stderr


def test_a_voxel_gets_the_features_where_its_centre_projects_to():
    grid = dict(
        point_cloud_range=(1, -1, -1, 3, 1, 1),
        voxel_size=1.0,
        shape=(2, 2, 2),
        frame='ego',
        free_index=1,
        class_names=('a', 'b'),
    )
    lift = ProjectAndAverage(grid)
    # a camera at the origin that looks along +x: u = 4 - 4 y / x, v = 4 - 4 z / x on 8 x 8 pixels; the second looks back
    ahead = torch.tensor([[4.0, -4, 0, 0], [4, 0, -4, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    behind = torch.diag(torch.tensor([1.0, 1, -1, 1])) @ ahead
    feats = torch.zeros(1, 2, 2, 8, 8)
    feats[0, 0] = torch.stack(torch.meshgrid(torch.arange(8.0) + 0.5, torch.arange(8.0) + 0.5, indexing='xy'))
    feats[0, 1] = 100
    given = Cameras(torch.eye(4).expand(1, 2, 4, 4), torch.eye(3).expand(1, 2, 3, 3), torch.full((1, 2, 2), 8))
    cameras = replace(given, network_projection=torch.stack([ahead, behind])[None])
    volume = lift([feats], OccBatch(cameras, torch.zeros(1, 2, 3, 8, 8)))
    assert volume.shape == (1, 2, 2, 2, 2)
    for index, x in enumerate((1.5, 2.5)):
        for iy, y in enumerate((-0.5, 0.5)):
            for iz, z in enumerate((-0.5, 0.5)):
                expected = torch.tensor([4 - 4 * y / x, 4 - 4 * z / x])
                torch.testing.assert_close(volume[0, :, index, iy, iz], expected)


@pytest.mark.parametrize('suffix, terms', [('', set()), ('_gaussrender', RENDERED), ('_silhouettes', {'loss_silhouette'})])
def test_config_learns_and_renders_only_with_the_block(repo_root, suffix, terms):
    cfg = Config.fromfile(repo_root / CONFIG.format(suffix))
    import_modules_from_strings(**cfg.custom_imports)
    model = MODELS.build(cfg.model)
    model.init_weights()
    cameras = bare_loop.make_cameras(1)
    label = torch.full(model.grid.shape, model.grid.free_index, dtype=torch.uint8)
    label[..., 0] = 11
    label[26:30, 12:28, 1:4] = 15
    sample = OccDataSample(gt_occ=label)
    sample.set_metainfo(dict(token='t', img_shape=(bare_loop.HEIGHT, bare_loop.WIDTH)))
    images = torch.randint(0, 256, (4, 3, bare_loop.HEIGHT, bare_loop.WIDTH), dtype=torch.uint8)
    inputs = dict(img=[images], cameras=[cameras], img_wh=[cameras.sizes[0]])
    batch = model.data_preprocessor(dict(inputs=inputs, data_samples=[sample]), training=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(6):
        losses = model(batch['inputs'], batch['data_samples'], mode='loss')
        assert {name for name in losses if not name.startswith('loss_occ')} == terms
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert totals[-1] < 0.8 * totals[0]
    (predicted,) = model.eval()(batch['inputs'], batch['data_samples'], mode='predict')
    assert predicted.pred_occ.shape == model.grid.shape


@pytest.mark.parametrize('document, number', [('add_a_model', 4), ('add_a_supervision', 2)])
def test_the_document_shows_the_files_as_they_are(repo_root, document, number):
    text = (repo_root / f'docs/{document}.md').read_text()
    blocks = re.findall(r'<!-- file: (\S+) -->\n```python\n(.*?)```', text, re.DOTALL)
    assert len(blocks) >= number
    for name, code in blocks:
        assert code.strip() in (repo_root / name).read_text(), f'{name} is not what docs/{document}.md shows'


def test_commands_of_the_document_name_existing_files(repo_root):
    text = (repo_root / 'docs/add_a_model.md').read_text()
    commands = re.findall(r'^python (\S+\.py)(?: (\S+\.py))?', text, re.MULTILINE)
    assert commands and all((repo_root / name).is_file() for pair in commands for name in pair if name)
