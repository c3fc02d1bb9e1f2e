from dataclasses import asdict

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import Sequential
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint, save_checkpoint, weights_to_cpu

from gaussian_rasterization import RasterSettings
from projects.gaussrender.aggregator import GaussRenderAggregator, cameras_from_samples
from projects.occ.structures import OccDataSample, OccPrediction, VoxelGrid


@pytest.fixture
def samples(cameras, labels):
    batch = []
    for b in range(2):
        sample = OccDataSample(
            metainfo=dict(
                ref2cam=cameras.ref2cam[b].numpy(),
                cam2img=cameras.K[b].numpy(),
                ori_img_wh=np.full((2, 2), (20, 14), dtype=np.float32),
                # the network's own images are smaller; rendering must not care
                ref2img=np.zeros((2, 4, 4), dtype=np.float32),
                img_wh=np.full((2, 2), (10, 6), dtype=np.float32),
            )
        )
        sample.gt_occ = labels[b].to(torch.uint8)
        batch.append(sample)
    return batch


@pytest.fixture
def build(grid):
    def make(**blocks):
        cfg = dict(type='GaussRenderAggregator', bev=dict(size=16), cameras=dict(indices='all'), **blocks)
        return MODELS.build(cfg, default_args=dict(grid=VoxelGrid.build(grid)))

    return make


def test_loss_equals_the_plain_module(build, samples, logits, feats, labels, cameras):
    for gaussians in (dict(), dict(feat_channels=6)):
        module = build(gaussians=gaussians)
        assert isinstance(module, GaussRenderAggregator)
        losses = module.loss(OccPrediction([logits[..., :2], logits], feats), samples)
        plain = module(logits, labels, cameras, voxel_feats=feats if gaussians else None)
        assert sorted(losses) == [f'loss_render_{v}_{q}' for v in ('bev', 'cam') for q in ('depth', 'sem')]
        torch.testing.assert_close(losses, plain, rtol=0, atol=0)


def test_features_that_no_decoder_reads_are_ignored(build, logits, feats):
    module = build()
    torch.testing.assert_close(module.predict_opacities(logits, feats), module.predict_opacities(logits))
    learned = build(gaussians=dict(feat_channels=6))
    assert not torch.equal(learned.predict_opacities(logits, feats), module.predict_opacities(logits))
    with pytest.raises(ValueError, match='got None; set gaussians.feat_channels'):
        learned.predict_opacities(logits)


def test_render_samples(build, samples, logits, feats, labels, cameras):
    module = build()
    pred, target = module.render_samples(OccPrediction([logits], feats), samples)
    torch.testing.assert_close(pred.cam_sem, module.render(logits, cameras, labels=labels, hard_opacity=True).cam_sem)
    torch.testing.assert_close(target.bev_sem, module.render_labels(labels, cameras).bev_sem)
    assert not pred.cam_sem.requires_grad and module.cameras.steps == 0
    for sample in samples:
        del sample.gt_occ
    pred, target = module.render_samples(OccPrediction([logits], feats), samples, indices=[1], hard_opacity=None)
    assert target is None
    torch.testing.assert_close(pred.cam_sem, module.render(logits, cameras.select([1])).cam_sem)


def test_cameras_from_samples(samples, cameras):
    got = cameras_from_samples(samples)
    assert (got.width, got.height) == (20, 14)
    torch.testing.assert_close(got.ref2cam, cameras.ref2cam)
    torch.testing.assert_close(got.K, cameras.K)


def test_errors_name_the_pipeline(build, samples, logits, cameras):
    module, prediction = build(), OccPrediction([logits])
    meta = samples[1].metainfo
    samples[1].set_metainfo(dict(ref2cam=meta['ref2cam'][:1]))
    with pytest.raises(ValueError, match=r'same number of cameras, got ref2cam of shapes \[\(2, 4, 4\), \(1, 4, 4\)\]'):
        module.loss(prediction, samples)
    samples[1].set_metainfo(dict(ref2cam=meta['ref2cam'], ori_img_wh=np.array([[20, 14], [20, 15]], dtype=np.float32)))
    with pytest.raises(ValueError, match=r'same original image size, got \(width, height\) \[\[20.0, 14.0\], \[20.0, 15.0\]\]'):
        module.loss(prediction, samples)
    bare = OccDataSample(metainfo=dict(ref2cam=meta['ref2cam'], ori_img_wh=meta['ori_img_wh']))
    bare.gt_occ = samples[0].gt_occ
    with pytest.raises(ValueError, match="no 'cam2img', which rendering needs; add it to meta_keys of PackOccInputs"):
        module.loss(prediction, [samples[0], bare])
    del samples[0].gt_occ
    with pytest.raises(ValueError, match='has no gt_occ.*LoadOccLabels'):
        module.loss(prediction, samples)


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
        assert module.render_loss.weights == dict.fromkeys(('cam_sem', 'cam_depth', 'bev_sem', 'bev_depth'), 10.0)

    def test_the_block_lists_every_argument_with_its_default(self, repo_root, grid):
        """Building with the block equals building with nothing: no default is written twice with two values."""
        cfg = Config.fromfile(repo_root / 'configs/_base_/gaussrender.py').aggregator
        full, empty = MODELS.build(cfg, default_args=dict(grid=grid)), GaussRenderAggregator(grid)
        for part in ('gaussians', 'cameras', 'render_loss', 'renderer'):
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
        assert {'GaussRenderAggregator', 'CameraSampler', 'VoxelsToGaussians', 'Linear'} <= set(visited)
