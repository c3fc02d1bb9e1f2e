"""tools/refine.py on generated streets: a damaged prediction gets better, files, film, foreign formats and refusals."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from mmengine.config import Config

from projects.occ.datasets.label_formats import read_label
from projects.occ.structures import VoxelGrid
from projects.streets import build_config, generate


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('refine', repo_root / 'tools' / 'refine.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def data(tmp_path_factory, repo_root):
    """A config of generated streets, and predictions: labels with holes and things in the air."""
    root = tmp_path_factory.mktemp('streets')
    generate(build_config(formats=('occ3d',), preset='tiny', image_size=(64, 40), scenes_train=1, scenes_val=2, frames=2), root)
    config = root / 'config.py'
    base = repo_root / 'configs/debug/tpvformer_tiny_synthetic-occ3d.py'
    splits = ''.join(f'{s}_dataloader = dict(dataset=dict(data_root={f"{root}/"!r}))\n' for s in ('train', 'val', 'test'))
    config.write_text(f'_base_ = [{str(base)!r}]\n{splits}')
    grid = VoxelGrid.build(Config.fromfile(config).grid)
    rng = np.random.default_rng(0)
    for path in sorted((root / 'occ3d_nuscenes' / 'gts').rglob('labels.npz')):
        labels, masks = read_label(str(path), grid, 'label')
        pred = labels.copy()
        pred[rng.random(grid.shape) < 0.03] = 4
        pred[(rng.random(grid.shape) < 0.3) & (labels != 17)] = 17
        (root / 'pred').mkdir(exist_ok=True)
        np.savez_compressed(root / 'pred' / f'{path.parent.name}.npz', pred=pred.astype(np.uint8))
    return root, config, grid


@pytest.mark.parametrize('method', ['march', 'queries'])
def test_a_damaged_prediction_gets_better(tool, data, tmp_path, method, capsys):
    root, config, grid = data
    out, metrics, film = tmp_path / 'out', tmp_path / 'm.json', tmp_path / 'film.gif'
    options = ['--method', method, '--seconds', '20', '--steps', '15', '--certainty', '0.7']
    extra = ['--metrics-json', str(metrics), '--film', str(film)] if method == 'march' else ['--metrics-json', str(metrics)]
    assert tool.main([str(config), '--pred', str(root / 'pred'), '--out', str(out), *options, *extra]) == 0
    found = json.loads(metrics.read_text())
    assert found['IoU']['difference'] > 0 and found['RayIoU']['difference'] > 0
    assert found['IoU']['low'] <= found['IoU']['difference'] <= found['IoU']['high']
    assert 'over scenes' in capsys.readouterr().out
    files = sorted(path for path in out.rglob('*.npz'))
    assert len(files) == 4
    with np.load(files[0]) as file:
        assert file['pred'].shape == grid.shape and file['pred'].dtype == np.uint8
    if method == 'march':
        assert film.read_bytes().startswith(b'GIF8')


def test_logits_are_taken_as_they_are(tool, data, tmp_path):
    root, config, grid = data
    logits = np.zeros((18, *grid.shape), np.float16)
    logits[17] = 3
    np.savez(tmp_path / 'a.npz', logits=logits, pred=np.zeros(grid.shape, np.uint8))
    found = tool.read_logits(tmp_path / 'a.npz', grid, 0.9)
    assert found.shape == (1, 18, *grid.shape) and (found[0, 17] == 3).all() and (found[0, :17] == 0).all()
    np.savez(tmp_path / 'b.npz', pred=np.full(grid.shape, 17, np.uint8))
    shares = tool.read_logits(tmp_path / 'b.npz', grid, 0.9).exp()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(shares[0, 17], 0.9, rtol=1e-5)
    np.savez(tmp_path / 'c.npz', logits=logits[:5])
    with pytest.raises(tool.OccError, match='logits must have the shape'):
        tool.read_logits(tmp_path / 'c.npz', grid, 0.9)


def test_what_is_missing_is_named(tool, data, tmp_path, capsys):
    root, config, _ = data
    (tmp_path / 'empty').mkdir()
    assert tool.main([str(config), '--pred', str(tmp_path / 'empty'), '--out', str(tmp_path / 'out')]) == 1
    assert '--save-logits' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.parse_args([str(config), '--pred', 'a', '--out', 'b', '--certainty', '0.2'])
