import importlib.util
import sys

import numpy as np
import pytest
import torch

from gaussian_rasterization import backends
from projects.gaussrender import CameraBatch
from projects.occ.structures import OccField, OccPrediction, VoxelGrid
from projects.rendering import splat
from projects.rendering.fields import ClassLogitsField
from projects.rendering.splat import SplatRenderer, visible_voxels
from projects.rendering.targets import labels_from_points

BACKGROUND = np.array([0.0, 0, 0, 1])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def visible_numpy(centers, ref2cam, K, width, height):
    x, y, z = (centers @ ref2cam[:3, :3].T + ref2cam[:3, 3]).T
    u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
    return (z > 0) & (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)


def field_of(grid, logits, feats=None, **switches):
    return ClassLogitsField(grid, **switches)(OccPrediction([logits], feats))


def matrices(cameras, b, n):
    return cameras.ref2cam[b, n].double().numpy(), cameras.K[b, n].double().numpy()


class TestVisibility:
    def test_against_projection(self, centers, cameras):
        got = visible_voxels(torch.tensor(centers), cameras)
        assert got.shape == (2, 2, 256)
        for b in range(2):
            for n in range(2):
                want = visible_numpy(centers, *matrices(cameras, b, n), 20, 14)
                np.testing.assert_array_equal(got[b, n].numpy(), want)
                assert 40 < want.sum() < 240

    def test_half_a_pixel_margin_and_the_plane_of_the_camera(self):
        camera = CameraBatch(torch.eye(4)[None, None], torch.tensor([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]])[None, None], 10, 10)
        # u = 10 x / z + 5
        points = torch.tensor(
            [[-0.45, 0, 1], [-0.44, 0, 1], [0.45, 0, 1], [0.44, 0, 1], [0, -0.45, 1], [0, 0.44, 1], [0, 0, -1], [0, 0, 0]]
        )
        got = visible_voxels(points, camera)[0, 0].tolist()
        assert got == [False, True, False, True, False, True, False, False]


def test_rendering_does_not_depend_on_the_device_of_the_import(monkeypatch, grid, cameras, logits):
    spec = importlib.util.spec_from_file_location('projects.rendering.imported_on_meta', splat.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    with torch.device('meta'):
        spec.loader.exec_module(module)
    for field in (field_of(grid, logits), OccField.from_labels(logits.argmax(1), VoxelGrid.build(grid))):
        ours, theirs = (kind(grid)(field, cameras) for kind in (module.SplatRenderer, SplatRenderer))
        assert torch.equal(ours.features, theirs.features) and torch.equal(ours.depth, theirs.depth)


class TestPrediction:
    @pytest.mark.parametrize('mask_elements', [False, True])
    def test_against_numpy(self, grid, centers, cameras, logits, reference_splat, mask_elements):
        views = SplatRenderer(grid)(field_of(grid, logits, mask_elements=mask_elements), cameras, cull='inside')
        assert views.features.shape == (2, 2, 14, 20, 4) and views.depth.shape == views.alpha.shape == (2, 2, 14, 20)
        flat = logits.flatten(2).transpose(1, 2).double().numpy()
        for b in range(2):
            free = softmax(flat[b])[:, 3]
            opacities = 1 - np.where(free < 0.5, free**2, 1 - (1 - free) ** 2)
            keep, colors = np.ones(256, dtype=bool), softmax(flat[b])
            if mask_elements:
                keep = flat[b].argmax(-1) != 3
                colors = np.concatenate([softmax(flat[b][:, :3]), np.zeros((256, 1))], -1)
            for n in range(2):
                ref2cam, K = matrices(cameras, b, n)
                rows = keep & visible_numpy(centers, ref2cam, K, 20, 14)
                sem, depth, alpha = reference_splat(
                    centers[rows], np.full(rows.sum(), 0.25), opacities[rows], colors[rows], ref2cam, K, 20, 14, BACKGROUND
                )
                np.testing.assert_allclose(views.features[b, n].numpy(), sem, atol=2e-5)
                np.testing.assert_allclose(views.depth[b, n].numpy(), depth, atol=1e-4)
                np.testing.assert_allclose(views.alpha[b, n].numpy(), alpha, atol=2e-5)
        np.testing.assert_allclose(views.features.sum(-1).numpy(), 1, atol=1e-5)

    def test_nothing_visible_paints_the_background(self, grid, cameras, logits):
        views = SplatRenderer(grid)(field_of(grid, logits), cameras, known=torch.zeros(2, 8, 8, 4, dtype=torch.bool))
        np.testing.assert_array_equal(views.features.numpy(), np.broadcast_to(BACKGROUND, views.features.shape))
        assert float(views.depth.abs().max()) == 0 and float(views.alpha.abs().max()) == 0

    def test_no_mask_renders_everything(self, grid, cameras, logits):
        field, renderer = field_of(grid, logits), SplatRenderer(grid)
        everything = torch.ones(2, 8, 8, 4, dtype=torch.bool)
        torch.testing.assert_close(renderer(field, cameras).features, renderer(field, cameras, known=everything).features)

    def test_rotations_matter_for_unequal_scales_only(self, grid, cameras, logits, feats):
        def render(**switches):
            module = ClassLogitsField(grid, feat_channels=6, **switches)
            for name, p in module.named_parameters():
                torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(len(name)))
            return SplatRenderer(grid)(module(OccPrediction([logits], feats)), cameras).features.detach()

        decoded, identity = render(overwrite_scales=False), render(overwrite_scales=False, overwrite_rotations=True)
        assert float((decoded - identity).abs().max()) > 0.01
        torch.testing.assert_close(render(), render(overwrite_rotations=True), rtol=0, atol=0)

    def test_half_precision_and_autocast_render_in_float32(self, grid, cameras, logits):
        renderer = SplatRenderer(grid)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            views = renderer(field_of(grid, logits.bfloat16()), cameras)
        assert views.features.dtype == views.depth.dtype == torch.float32
        expected = renderer(field_of(grid, logits.bfloat16().float()), cameras)
        torch.testing.assert_close(views.features, expected.features, rtol=0, atol=0)

    def test_settings_and_backend_reach_the_rasteriser(self, grid, cameras, logits):
        field = field_of(grid, logits)
        default = SplatRenderer(grid, backend='reference')(field, cameras)
        blurred = SplatRenderer(grid, backend='reference', settings=dict(dilation=3.0))(field, cameras)
        assert float((default.features - blurred.features).abs().max()) > 0.01
        with pytest.raises(ValueError, match="got 'nope'"):
            SplatRenderer(grid, backend='nope')(field, cameras)


class TestLabels:
    def test_against_numpy(self, grid, centers, cameras, labels, reference_splat):
        field = OccField.from_labels(labels, VoxelGrid.build(grid))
        views = SplatRenderer(grid, gaussian_scale=0.3)(field, cameras, cull='inside')
        one_hot = SplatRenderer(grid, gaussian_scale=0.3)(field.one_hot(), cameras, cull='inside')
        torch.testing.assert_close(views.features, one_hot.features, rtol=0, atol=1e-6)
        for b in range(2):
            ids = labels[b].flatten().numpy()
            for n in range(2):
                ref2cam, K = matrices(cameras, b, n)
                rows = (ids != 3) & (ids != 255) & visible_numpy(centers, ref2cam, K, 20, 14)
                sem, depth, _ = reference_splat(
                    centers[rows], np.full(rows.sum(), 0.3), np.ones(rows.sum()), np.eye(4)[ids[rows]], ref2cam, K, 20, 14,
                    BACKGROUND,
                )  # fmt: skip
                np.testing.assert_allclose(views.features[b, n].numpy(), sem, atol=2e-5)
                np.testing.assert_allclose(views.depth[b, n].numpy(), depth, atol=1e-4)

    def test_empty_scene(self, grid, cameras):
        empty = OccField.from_labels(torch.full((2, 8, 8, 4), 3), VoxelGrid.build(grid))
        views = SplatRenderer(grid)(empty, cameras)
        np.testing.assert_array_equal(views.features.numpy(), np.broadcast_to(BACKGROUND, views.features.shape))


class TestAnyFeatures:
    def test_channels_are_blended_on_their_own(self, grid, cameras, logits):
        field = field_of(grid, logits)
        doubled = OccField(field.grid, field.opacity, torch.cat([field.features, -3 * field.features], 1), torch.zeros(8))
        colours = OccField(field.grid, field.opacity, field.features[:, :3], torch.tensor([0.2, 0.3, 0.4]))
        plain = SplatRenderer(grid)(OccField(field.grid, field.opacity, field.features, torch.zeros(4)), cameras)
        views = SplatRenderer(grid)(doubled, cameras)
        torch.testing.assert_close(views.features[..., :4], plain.features)
        torch.testing.assert_close(views.features[..., 4:], -3 * plain.features)
        light = (1 - views.alpha)[..., None] * torch.tensor([0.2, 0.3, 0.4])
        torch.testing.assert_close(SplatRenderer(grid)(colours, cameras).features, plain.features[..., :3] + light)


class TestPointLabels:
    def test_last_point_of_a_voxel_wins(self, grid):
        grid = VoxelGrid.build(grid)
        points = [
            torch.tensor(
                [
                    [-1.99, -1.99, -0.99, 0],  # voxel 0 0 0
                    [0.49, 0.01, 0.6, 1],  # voxel 4 4 3
                    [0.01, 0.49, 0.9, 2],  # same voxel, later
                    [-2.01, 0, 0, 1],  # outside: must not be truncated into the grid
                    [0, 0, 1.0, 1],  # on the upper border: outside
                ]
            ),
            torch.zeros(0, 4),
        ]
        got = labels_from_points(torch.zeros(2, 8, 8, 4, dtype=torch.long), points, grid)
        want = np.full((2, 8, 8, 4), 255)
        want[0, 0, 0, 0], want[0, 4, 4, 3] = 0, 2
        np.testing.assert_array_equal(got.numpy(), want)

    def test_order_decides_in_a_crowd(self, grid):
        cloud = torch.zeros(5000, 4)
        cloud[:, 3] = torch.randint(0, 3, (5000,))
        got = labels_from_points(torch.zeros(1, 8, 8, 4, dtype=torch.long), [cloud], VoxelGrid.build(grid))
        assert int(got[0, 4, 4, 2]) == int(cloud[-1, 3])

    def test_errors(self, grid):
        grid, labels = VoxelGrid.build(grid), torch.zeros(1, 8, 8, 4, dtype=torch.long)
        with pytest.raises(ValueError, match=r'list of 1 tensors \(M, 4\).*got \[\(5, 3\)\]'):
            labels_from_points(labels, [torch.zeros(5, 3)], grid)
        with pytest.raises(ValueError, match='class ids must lie in 0..3, got up to 17'):
            labels_from_points(labels, [torch.tensor([[0.0, 0, 0, 17]])], grid)


class TestBackend:
    """The backend is looked for when a model is built; the slow reference is only taken when asked for."""

    @pytest.fixture
    def without_cuda_backend(self, monkeypatch):
        monkeypatch.setattr(backends, 'AVAILABLE', dict(cpu=True, cuda=False, reference=True))

    def test_gpu_without_its_backend(self, grid, without_cuda_backend, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        with pytest.raises(RuntimeError, match=r"'cuda' backend .* is missing(.|\n)*FORCE_CUDA=1 pip install") as error:
            SplatRenderer(grid)
        assert str(error.value).endswith("renderer.backend='reference', or renderer.backend='cpu' if it stays on the CPU.")
        assert SplatRenderer(grid, backend='reference').backend == 'reference'
        assert SplatRenderer(grid, backend='cpu').backend == 'cpu'

    def test_machine_without_gpu(self, grid, without_cuda_backend, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        assert SplatRenderer(grid).backend is None
        with pytest.raises(RuntimeError, match=r"'cuda' backend .* is missing(.|\n)*FORCE_CUDA=1 pip install"):
            SplatRenderer(grid, backend='cuda')
        with pytest.raises(ValueError, match=r"backend must be None or one of \('cpu', 'cuda', 'reference'\), got 'opengl'"):
            SplatRenderer(grid, backend='opengl')
