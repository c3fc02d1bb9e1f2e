from dataclasses import asdict

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import Sequential
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint, save_checkpoint, weights_to_cpu

from gaussian_rasterization import RasterSettings
from projects.gaussrender.aggregator import GaussRenderAggregator
from projects.occ.structures import Cameras, OccBatch, OccPrediction, VoxelGrid


@pytest.fixture
def batch(cameras, labels):
    """The network's own images are smaller, and there is a frame that is no key frame; rendering must not care."""
    both = Cameras(
        torch.cat([cameras.ref2cam, cameras.ref2cam + 1], 1),
        torch.cat([cameras.K, cameras.K], 1),
        torch.cat([cameras.sizes, cameras.sizes], 1),
        frame=torch.tensor([0, 0, -1, -1]),
        warp=torch.diag(torch.tensor([0.5, 0.5, 1])).expand(2, 4, 3, 3),
    )
    return OccBatch(both, torch.zeros(2, 4, 3, 7, 10), labels=labels)


@pytest.fixture
def build(grid):
    def make(**blocks):
        cfg = dict(type='GaussRenderAggregator', bev=dict(size=16), cameras=dict(indices='all'), **blocks)
        return MODELS.build(cfg, default_args=dict(grid=VoxelGrid.build(grid)))

    return make


def test_loss_equals_the_plain_module(build, batch, logits, feats, labels, cameras):
    for gaussians in (dict(), dict(feat_channels=6)):
        module = build(gaussians=gaussians)
        assert isinstance(module, GaussRenderAggregator)
        losses = module.loss(OccPrediction([logits[..., :2], logits], feats), batch)
        plain = module(logits, labels, cameras, voxel_feats=feats if gaussians else None)
        assert sorted(losses) == [f'loss_render_{v}_{q}' for v in ('bev', 'cam') for q in ('depth', 'sem')]
        torch.testing.assert_close(losses, plain, rtol=0, atol=0)


def test_opacities_come_from_the_field(build, logits, feats):
    module, learned = build(), build(gaussians=dict(feat_channels=6))
    torch.testing.assert_close(module.field(OccPrediction([logits], feats)).opacity, module.predict_opacities(logits))
    assert not torch.equal(learned.field(OccPrediction([logits], feats)).opacity, module.predict_opacities(logits))
    with pytest.raises(ValueError, match='got None; set gaussians.feat_channels'):
        learned.predict_opacities(logits)


def test_render_batch(build, batch, logits, feats, labels, cameras):
    module = build()
    pred, target = module.render_batch(OccPrediction([logits], feats), batch)
    torch.testing.assert_close(pred.cam_sem, module.render(logits, cameras, labels=labels, hard_opacity=True).cam_sem)
    torch.testing.assert_close(target.bev_sem, module.render_labels(labels, cameras).bev_sem)
    assert not pred.cam_sem.requires_grad and module.cameras.steps == 0
    batch.labels = None
    pred, target = module.render_batch(OccPrediction([logits], feats), batch, indices=[1], hard_opacity=None)
    assert target is None
    torch.testing.assert_close(pred.cam_sem, module.render(logits, cameras.select([1])).cam_sem)


@pytest.mark.parametrize('sizes', [[[20, 14], [12, 9]], [[[20, 14], [12, 9]], [[20, 14], [20, 14]]]])
def test_views_of_different_sizes_train(build, logits, labels, cameras, sizes):
    """Every view is averaged over its own pixels, then views are averaged."""
    sizes = torch.tensor(sizes).expand(2, 2, 2)
    mixed = Cameras(cameras.ref2cam, cameras.K, sizes)
    module = build()
    losses = module.loss(OccPrediction([logits.requires_grad_()]), OccBatch(mixed, labels=labels))
    sum(losses.values()).backward()
    assert float(logits.grad.abs().sum()) > 0
    single = [
        module.loss(OccPrediction([logits[[b]]]), OccBatch(mixed.samples([b]).select([n]), labels=labels[[b]]))
        for b in range(2)
        for n in range(2)
    ]
    for name, value in losses.items():
        torch.testing.assert_close(value, sum(part[name] for part in single) / 4)


def test_what_is_missing_is_named(build, batch, logits):
    module = build()
    batch.labels = None
    with pytest.raises(ValueError, match='gt_occ.*LoadOccLabels'):
        module.loss(OccPrediction([logits]), batch)
    with pytest.raises(ValueError, match='logits contain NaN'):
        module.loss(OccPrediction([logits * torch.nan]), batch)


class TestConfig:
    @pytest.fixture
    def experiment(self, repo_root, tmp_path):
        """A child config that hangs the block into its model as the base file tells."""
        (tmp_path / 'baseline.py').write_text("model = dict(type='OccSegmentor')\n")
        path = tmp_path / 'child.py'

        def write(block):
            path.write_text(
                f"_base_ = ['./baseline.py', {str(repo_root / 'configs/_base_/gaussrender.py')!r}]\n"
                f'aggregator = _base_.{block}\naggregator.gaussians.feat_channels = 256\nmodel = dict(aggregator=aggregator)\n'
            )
            return Config.fromfile(path)

        return write

    @pytest.mark.parametrize(
        'block, scale, strategy, weights',
        [
            ('aggregator', None, 'SensorCameras', None),
            ('aggregator_occ3d', 0.27, 'SensorCameras', [2, 1, 1, 2, 1, 1]),
            ('aggregator_surroundocc', 0.25, 'TrajectoryCameras', [2, 1, 1, 2, 1, 1]),
        ],
    )
    def test_published_settings(self, experiment, grid, block, scale, strategy, weights):
        cfg = experiment(block).model.aggregator
        assert cfg.gaussians.gaussian_scale == scale and cfg.cameras.weights == weights
        module = MODELS.build(cfg, default_args=dict(grid=grid))
        assert type(module.cameras.strategy).__name__ == strategy
        assert module.gaussians.feat_channels == 256 and module.gaussians.gaussian_scale == (scale or 0.25)
        weights = {name: term.weight for name, term in module.terms.items()}
        names = ('cam_sem', 'cam_depth', 'bev_sem', 'bev_depth')
        assert weights == {f'loss_render_{name}': 10.0 for name in names}

    def test_the_block_lists_every_argument_with_its_default(self, repo_root, grid):
        """Building with the block equals building with nothing: no default is written twice with two values."""
        cfg = Config.fromfile(repo_root / 'configs/_base_/gaussrender.py').aggregator
        full, empty = MODELS.build(cfg, default_args=dict(grid=grid)), GaussRenderAggregator(grid)
        assert full.terms == empty.terms
        for part in ('gaussians', 'cameras', 'target', 'renderer'):
            a, b = (
                {k: v for k, v in vars(getattr(m, part)).items() if not k.startswith('_') and k not in ('strategy', 'grid')}
                for m in (full, empty)
            )
            if part == 'renderer':
                # the defaults of the rasteriser are written out for the command line
                assert a.pop('settings') == asdict(RasterSettings()) and b.pop('settings') == {}
            assert a == b
        torch.testing.assert_close(full.bev_camera.K, empty.bev_camera.K)

    def test_command_line_overrides(self, experiment):
        cfg = experiment('aggregator_occ3d')
        cfg.merge_from_dict({'model.aggregator.loss.bev_depth': 0, 'model.aggregator.cameras.type': 'ElevatedCameras'})
        assert cfg.model.aggregator.loss.bev_depth == 0 and cfg.model.aggregator.cameras.type == 'ElevatedCameras'


class TestInsideMmengine:
    def test_checkpoint_functions_keep_the_camera_state(self, build, tmp_path):
        module, fresh = build(gaussians=dict(feat_channels=6)), build(gaussians=dict(feat_channels=6))
        module.cameras.steps = 11
        path = str(tmp_path / 'epoch.pth')
        save_checkpoint(dict(state_dict=weights_to_cpu(get_state_dict(module))), path)
        load_checkpoint(fresh, path, strict=True)
        assert fresh.cameras.steps == 11
        torch.testing.assert_close(fresh.gaussians.state_dict(), module.gaussians.state_dict())

    def test_converted_weights_of_the_original_load_strictly(self, build, tmp_path):
        module = build(gaussians=dict(feat_channels=6))
        decoder = {name: torch.full_like(p, 0.5) for name, p in module.named_parameters()}
        assert sorted(decoder) == sorted(f'gaussians.mlp_coarse.{i}.{kind}' for i in (0, 2, 4) for kind in ('weight', 'bias'))
        path = str(tmp_path / 'official.pth')
        torch.save(dict(state_dict=decoder), path)
        load_checkpoint(module, path, strict=True)
        assert all(float(p.detach().min()) == 0.5 for p in module.parameters())

    def test_initialisation_walks_through(self, build):
        visited = []
        Sequential(build(gaussians=dict(feat_channels=6))).apply(lambda m: visited.append(type(m).__name__)).init_weights()
        assert {'GaussRenderAggregator', 'CameraSampler', 'ClassLogitsField', 'Linear'} <= set(visited)
