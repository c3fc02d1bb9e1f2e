import subprocess
import sys

import numpy as np
import pytest
import torch

from projects.gaussrender import CameraBatch, GaussRender

TERMS = ('loss_render_cam_sem', 'loss_render_cam_depth', 'loss_render_bev_sem', 'loss_render_bev_depth')


@pytest.fixture
def build(grid):
    def make(**blocks):
        return GaussRender(grid, **{'bev': dict(size=16), 'cameras': dict(indices='all'), **blocks})

    return make


def scene(cameras, b):
    return CameraBatch(cameras.ref2cam[b : b + 1], cameras.K[b : b + 1], cameras.width, cameras.height)


def total(losses):
    return sum(losses.values())


def numpy_losses(logits, labels, cameras, b, centers, splat):
    """The four weighted losses of one scene from the definition, without features, all cameras."""

    def images(mask_of_view, ref2cam, K, width, height):
        flat = logits[b].flatten(1).T.double().numpy()
        probabilities = np.exp(flat) / np.exp(flat).sum(-1, keepdims=True)
        free = probabilities[:, 3]
        opacities = 1 - np.where(free < 0.5, free**2, 1 - (1 - free) ** 2)
        ids = labels[b].flatten().numpy()
        background = np.array([0, 0, 0, 1.0])
        rows, gt = mask_of_view & (ids != 255), mask_of_view & (ids != 255) & (ids != 3)
        pred = splat(
            centers[rows], np.full(256, 0.25), opacities[rows], probabilities[rows], ref2cam, K, width, height, background
        )
        target = splat(centers[gt], np.full(256, 0.25), np.ones(256), np.eye(4)[ids[gt]], ref2cam, K, width, height, background)
        return pred, target

    def terms(pred, target, depth_range):
        valid = target[1] > 0.1
        return np.abs(pred[0] - target[0]).mean(), np.abs(pred[1] - target[1])[valid].mean() / depth_range

    per_camera = []
    for n in range(cameras.num_cameras):
        ref2cam, K = cameras.ref2cam[b, n].double().numpy(), cameras.K[b, n].double().numpy()
        x, y, z = (centers @ ref2cam[:3, :3].T + ref2cam[:3, 3]).T
        u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
        inside = (z > 0) & (u > 0.5) & (u < cameras.width - 0.5) & (v > 0.5) & (v < cameras.height - 0.5)
        per_camera.append(terms(*images(inside, ref2cam, K, cameras.width, cameras.height), 50))
    bev = np.diag([1.0, -1, -1, 1])
    bev[2, 3] = 4.0
    above = terms(*images(np.ones(256, bool), bev, np.array([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]), 16, 16), 100)
    return 10 * np.array([*np.mean(per_camera, axis=0), *above])


class TestLosses:
    def test_against_numpy(self, build, logits, labels, cameras, centers, reference_splat):
        losses = build()(logits, labels, cameras)
        assert tuple(losses) == TERMS
        want = np.mean([numpy_losses(logits, labels, cameras, b, centers, reference_splat) for b in range(2)], axis=0)
        np.testing.assert_allclose([float(v) for v in losses.values()], want, rtol=2e-5)
        assert (want > 0.005).all()

    @pytest.mark.parametrize('kind', ['SensorCameras', 'RandomCameras', 'StereoCameras'])
    def test_a_batch_is_the_mean_of_its_scenes(self, build, logits, feats, labels, cameras, kind):
        module = build(gaussians=dict(feat_channels=6), cameras=dict(type=kind, indices='all', seed=3))
        draws = module.cameras.draw(2)
        both = module(logits, labels, cameras, voxel_feats=feats, draws=draws)
        singles = [
            module(logits[b : b + 1], labels[b : b + 1], scene(cameras, b), voxel_feats=feats[b : b + 1], draws=draws)
            for b in range(2)
        ]
        for term in TERMS:
            torch.testing.assert_close(both[term], (singles[0][term] + singles[1][term]) / 2, rtol=1e-5, atol=1e-7)
        summed = build(
            gaussians=dict(feat_channels=6), cameras=dict(type=kind, indices='all'), loss=dict(batch_reduction='sum')
        )
        summed.load_state_dict(module.state_dict())
        for term, value in summed(logits, labels, cameras, voxel_feats=feats, draws=draws).items():
            torch.testing.assert_close(value, 2 * both[term], rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize('feat_channels', [None, 6])
    def test_a_perfect_prediction_costs_exactly_nothing(self, build, feats, labels, cameras, feat_channels):
        classes = labels.where(labels != 255, 0)
        logits = torch.nn.functional.one_hot(classes, 4).movedim(-1, 1).float() * 2e4
        module = build(gaussians=dict(overwrite_opacity=True, feat_channels=feat_channels))
        losses = module(logits, labels, cameras, voxel_feats=None if feat_channels is None else feats)
        assert {name: float(value) for name, value in losses.items()} == dict.fromkeys(TERMS, 0.0)

    def test_predictions_of_ignored_voxels_cost_nothing(self, build, logits, labels, cameras):
        module = build()
        changed = logits.clone()
        changed.movedim(1, -1)[labels == 255] = torch.tensor([9.0, -9.0, 9.0, -9.0])
        torch.testing.assert_close(module(changed, labels, cameras), module(logits, labels, cameras), rtol=0, atol=0)

    def test_gradients_reach_logits_features_and_decoder(self, build, logits, feats, labels, cameras):
        module = build(gaussians=dict(feat_channels=6))
        for term in TERMS:
            x, f = logits.clone().requires_grad_(), feats.clone().requires_grad_()
            module.zero_grad()
            module(x, labels, cameras, voxel_feats=f)[term].backward()
            # colours are the logits, opacity comes from the features: depth sees the features only
            assert (float(x.grad.abs().sum()) > 1e-4) == term.endswith('sem'), term
            assert float(f.grad.abs().sum()) > 1e-5, term
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())

    def test_gradients_of_opacity_from_logits(self, build, logits, labels, cameras):
        x = logits.clone().requires_grad_()
        build()(x, labels, cameras)['loss_render_cam_depth'].backward()
        assert float(x.grad.abs().sum()) > 1e-4

    def test_gradcheck(self):
        grid = dict(
            point_cloud_range=(-0.75, -0.75, -0.25, 0.75, 0.75, 0.25), voxel_size=0.5, shape=(3, 3, 1), frame='ego',
            free_index=1, class_names=('wall', 'free'),
        )  # fmt: skip
        camera = torch.tensor([[0.0, -1, 0, 0.03], [0, 0, -1, 0.02], [1, 0, 0, 1.4], [0, 0, 0, 1]]).double()[None, None]
        K = torch.tensor([[6.0, 0, 3.1], [0, 6, 2.2], [0, 0, 1]]).double()[None, None]
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, 2, 3, 3, 1, generator=generator, dtype=torch.float64).requires_grad_()
        feats = torch.randn(1, 3, 3, 3, 1, generator=generator, dtype=torch.float64).requires_grad_()
        labels = torch.randint(0, 2, (1, 3, 3, 1), generator=generator)
        module = GaussRender(grid, gaussians=dict(feat_channels=3), bev=dict(size=6)).double()

        def loss(x, f):
            return total(module(x, labels, CameraBatch(camera, K, 6, 5), voxel_feats=f))

        assert loss(logits, feats).dtype == torch.float64
        assert torch.autograd.gradcheck(loss, (logits, feats), eps=1e-7, atol=1e-5, rtol=1e-3)

    def test_switched_off_terms(self, build, logits, labels, cameras):
        everything = build()(logits, labels, cameras)
        losses = build(loss=dict(bev_sem=0, bev_depth=0, cam_depth=0))(logits, labels, cameras)
        torch.testing.assert_close(losses, dict(loss_render_cam_sem=everything['loss_render_cam_sem']))
        losses = build(loss=dict(cam_sem=0, cam_depth=0))(logits, labels, cameras)
        assert list(losses) == ['loss_render_bev_sem', 'loss_render_bev_depth']
        torch.testing.assert_close(losses['loss_render_bev_sem'], everything['loss_render_bev_sem'])

    def test_camera_draws_are_counted_and_resumed(self, build, logits, labels, cameras):
        options = dict(cameras=dict(type='ElevatedCameras', lift=0.2))
        module, values = build(**options), []
        for step in range(4):
            if step == 2:
                state = module.state_dict()
            values.append(float(total(module(logits, labels, cameras))))
        assert list(state) == ['cameras._extra_state'] and int(state['cameras._extra_state']) == 2
        resumed = build(**options)
        resumed.load_state_dict(state)
        assert [float(total(resumed(logits, labels, cameras))) for _ in range(2)] == values[2:]
        assert len(set(values)) == 4

    def test_labels_of_any_integer_type(self, build, logits, labels, cameras):
        module = build()
        torch.testing.assert_close(module(logits, labels.to(torch.uint8), cameras), module(logits, labels, cameras))

    def test_point_labels_replace_the_label_grid(self, build, logits, labels, cameras, centers):
        module = build()
        flat = labels.flatten(1)
        points = [torch.cat([torch.tensor(centers).float(), flat[b, :, None].float()], 1)[flat[b] != 255] for b in range(2)]
        torch.testing.assert_close(module(logits, labels, cameras, points=points), module(logits, labels, cameras))
        few = [cloud[cloud[:, 3] == 1] for cloud in points]
        only = labels.where((labels == 1) | (labels == 255), 3)
        # the prediction still shows every labelled voxel, the label only those that were hit
        torch.testing.assert_close(module(logits, labels, cameras, points=few), module(logits, only, cameras))


class TestRender:
    def test_images(self, build, logits, labels, cameras):
        module = build(cameras=dict(type='RandomCameras'))
        images = module.render(logits, cameras)
        assert images.cam_sem.shape == (2, 2, 14, 20, 4) and images.cam_depth.shape == images.cam_alpha.shape == (2, 2, 14, 20)
        assert images.bev_sem.shape == (2, 16, 16, 4) and images.bev_depth.shape == images.bev_alpha.shape == (2, 16, 16)
        assert module.cameras.steps == 0, 'pictures must not advance the cameras of the training'
        without = module.render(logits, cameras, labels=labels)
        assert float((without.bev_sem - images.bev_sem).abs().max()) > 0.01
        flat = module.render(logits, cameras, with_bev=False)
        assert flat.bev_sem is None and flat.bev_depth is None and flat.bev_alpha is None

    def test_losses_come_from_these_images(self, build, logits, labels, cameras):
        module = build()
        losses = module(logits, labels, cameras)
        pred, target = module.render(logits, cameras, labels=labels), module.render_labels(labels, cameras)
        torch.testing.assert_close(losses['loss_render_cam_sem'], 10 * (pred.cam_sem - target.cam_sem).abs().mean())
        torch.testing.assert_close(losses['loss_render_bev_sem'], 10 * (pred.bev_sem - target.bev_sem).abs().mean())

    def test_hard_opacity_shows_the_argmax(self, build, logits, cameras):
        module = build()
        hard = module.render(logits, cameras, hard_opacity=True)
        configured = build(gaussians=dict(overwrite_opacity=True)).render(logits, cameras)
        torch.testing.assert_close(hard.cam_sem, configured.cam_sem, rtol=0, atol=0)
        assert float((hard.cam_sem - module.render(logits, cameras).cam_sem).abs().max()) > 0.05

    def test_bird_eye_view_is_oriented_like_the_grid(self, build, cameras):
        labels = torch.full((2, 8, 8, 4), 3)
        # low: x = y = 1.75, z = -0.75, seen from 4 m: u, v = 8 + 16 (1.75, -1.75) / 4.75; high: x = -1.25, y = 1.25, z = 0.75
        labels[:, 7, 7, 0], labels[:, 1, 6, 3] = 0, 1
        images = build().render_labels(labels, cameras)
        classes, depth = images.bev_sem[0].argmax(-1), images.bev_depth[0] / images.bev_alpha[0]
        assert int(classes[2, 13]) == 0 and int(classes[1, 1]) == 1 and int(classes[13, 13]) == 3
        np.testing.assert_allclose([float(depth[2, 13]), float(depth[1, 1])], [4.75, 3.25], rtol=1e-5)

    def test_opacities_without_a_rasteriser_call(self, build, logits, feats):
        opacities = build(gaussians=dict(feat_channels=6)).predict_opacities(logits, feats)
        assert opacities.shape == (2, 8, 8, 4) and 0 < float(opacities.detach().min()) < float(opacities.detach().max()) < 1


class TestErrors:
    def test_construction(self, grid):
        with pytest.raises(ValueError, match='num_classes=18, but grid.class_names lists 4 classes'):
            GaussRender(grid, num_classes=18)
        with pytest.raises(TypeError, match='gaussian_scael'):
            GaussRender(grid, gaussians=dict(gaussian_scael=1))
        with pytest.raises(
            TypeError, match='renderer.settings has no field jacobian_clmp; there are near, dilation, .*jacobian_clamp'
        ):
            GaussRender(grid, renderer=dict(settings=dict(jacobian_clmp='offcentre')))
        with pytest.raises(ValueError, match='near must be > 0'):
            GaussRender(grid, renderer=dict(settings=dict(near=-1.0)))
        with pytest.raises(ValueError, match="unknown camera strategy 'Drone'"):
            GaussRender(grid, cameras=dict(type='Drone'))

    def test_calls(self, build, logits, labels, cameras):
        module = build()
        for arguments, message in (
            ((logits[:, :3], labels, cameras), 'logits have 3 channels, but the grid names 4 classes'),
            ((logits[..., :2], labels, cameras), r'logits must be \(B, C, X, Y, Z\) .*got \(2, 4, 8, 8, 2\)'),
            ((logits * float('nan'), labels, cameras), 'logits contain NaN'),
            ((logits, labels[..., :3], cameras), r'expected a label volume of shape \(8, 8, 4\).*got \(2, 8, 8, 3\)'),
            ((logits, labels[:1], cameras), 'logits hold 2 scenes, but labels hold 1'),
            ((logits, labels.float(), cameras), r'labels must be integers \(B, X, Y, Z\), got torch.float32'),
            ((logits, labels.where(labels != 1, 9), cameras), 'class id 9 is outside 0..3 and is not ignore_index 255'),
            ((logits, labels, scene(cameras, 0)), 'logits hold 2 scenes, but the cameras belong to 1'),
        ):
            with pytest.raises(ValueError, match=message):
                module(*arguments)
        with pytest.raises(ValueError, match='cameras.weights has 6 entries, but the batch has 2 cameras'):
            build(cameras=dict(weights=[2, 1, 1, 2, 1, 1]))(logits, labels, cameras)
        with pytest.raises(ValueError, match='labels hold 2 scenes, but the cameras belong to 1'):
            module.render_labels(labels, scene(cameras, 0))


WITHOUT_RASTERISER = """
import sys
sys.modules['gaussian_rasterization'] = None
import torch
from projects.gaussrender import CameraBatch, GaussRender
loaded = sorted(name for name in sys.modules if name.split('.')[0] in ('mmengine', 'mmcv', 'mmdet', 'mmdet3d'))
assert not loaded, loaded
grid = dict(point_cloud_range=(-1, -1, -1, 1, 1, 1), voxel_size=0.5, shape=(4, 4, 4), frame='ego', free_index=1,
            class_names=('a', 'free'))
module = GaussRender(grid=grid, num_classes=2, gaussians=dict(feat_channels=3))
logits, feats = torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4)
assert module.predict_opacities(logits, feats).shape == (1, 4, 4, 4)
cameras = CameraBatch(torch.eye(4)[None, None], torch.eye(3)[None, None], 4, 4)
try:
    module(logits, torch.zeros(1, 4, 4, 4, dtype=torch.long), cameras, voxel_feats=feats)
except ImportError as error:
    print(error)
"""


def test_builds_and_predicts_without_rasteriser_and_mm_packages(repo_root):
    result = subprocess.run([sys.executable, '-c', WITHOUT_RASTERISER], cwd=repo_root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'rendering needs the package gaussian_rasterization' in result.stdout
    assert 'pip install --no-build-isolation -e extensions/diff-gaussian-rasterization' in result.stdout


def test_options_are_dicts(build):
    with pytest.raises(TypeError, match=r"cameras=dict\(type='ElevatedAroundCameras'\)"):
        build(cameras='ElevatedAroundCameras')
    with pytest.raises(TypeError, match='bev must be a dict'):
        build(bev=400)
