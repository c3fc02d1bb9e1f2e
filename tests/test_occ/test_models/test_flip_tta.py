import pytest
import torch
from torch import nn

from projects.occ.models import BaseOccHead, DensityHead, FlipTTA
from projects.occ.structures import Cameras, OccBatch, OccDataSample, OccPrediction, Rays, VoxelGrid
from projects.occ.structures.batch_flips import flip_images, mirror_grid

GRID = VoxelGrid((-4, -3, -1, 4, 3, 1), 1.0, (8, 6, 2), 'ego', 2, class_names=('car', 'road', 'free'))
LOPSIDED = VoxelGrid((0, -3, -1, 8, 3, 1), 1.0, (8, 6, 2), 'ego', 2, class_names=('car', 'road', 'free'))


def make_batch(width=20, padded=24):
    """Two cameras ahead and back; images padded at the right; the second one is augmented."""
    torch.manual_seed(0)
    ahead = torch.tensor([[0.0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
    back = torch.tensor([[0.0, 1, 0, 0.2], [0, 0, -1, 0.1], [-1, 0, 0, 0.2], [0, 0, 0, 1]])
    K = torch.tensor([[8.0, 0, 9.3], [0, 8, 6.1], [0, 0, 1]])
    warp = torch.tensor([[1.0, 0, 0.7], [0, 1, -0.4], [0, 0, 1]])
    images = torch.randn(1, 2, 3, 12, padded)
    images[..., width:] = 0
    cameras = Cameras(
        torch.stack([ahead, back])[None],
        K.expand(1, 2, 3, 3),
        torch.tensor([[[width, 12]] * 2]),
        warp=torch.stack([torch.eye(3), warp])[None],
    )
    return OccBatch(cameras=cameras, images=images, image_sizes=torch.tensor([[[float(width), 12]] * 2]), tokens=['t'])


class ColorHead(BaseOccHead):
    def forward(self, scene):
        return OccPrediction(logits=[scene])


class ColorModel(nn.Module):
    """Logits of a voxel are the colours of the pixel that its centre falls on, so that it does not care about mirrors."""

    training_only_prefixes = ()
    keep_logits = True

    def __init__(self, grid=GRID, bias=0.0):
        super().__init__()
        self.grid, self.bias = grid, bias
        self.occ_head = ColorHead(grid)

    def encode_decode(self, batch):
        points = torch.cat([self.grid.centers(), torch.ones(*self.grid.shape, 1)], -1).flatten(0, 2)
        total = torch.zeros(3, len(points))
        for view in range(2):
            u, v, depth = (batch.cameras.ref2img[0, view, :3] @ points.T).unbind()
            u, v = u / depth, v / depth
            width, height = batch.image_sizes[0, view]
            inside = (depth > 0.1) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            colors = batch.images[0, view][:, v[inside].long(), u[inside].long()]
            total[:, inside] += colors
        # what a model that prefers one side of the image or of the grid would add
        side = torch.linspace(0, 1, self.grid.shape[0])[:, None, None].expand(self.grid.shape)
        return OccPrediction(logits=[total.view(1, 3, *self.grid.shape) + self.bias * side])

    def data_preprocessor(self, data, training):
        assert not training
        return dict(inputs=data['inputs'], data_samples=data['data_samples'])

    def add_predictions(self, prediction, samples):
        for sample, label, scores in zip(samples, self.occ_head.predict_labels(prediction), prediction.logits[-1]):
            sample.pred_occ, sample.pred_logits = label, scores
        return samples

    def test_step(self, data):
        raise AssertionError


def test_every_copy_of_a_model_that_knows_no_sides_says_the_same():
    model, batch = ColorModel(), make_batch()
    plain = model.encode_decode(batch).logits[0]
    assert plain.abs().sum() > 10
    tta = FlipTTA(model)
    assert len(tta.copies()) == 8 and tta.copies()[0] == (False, ())
    for prediction in tta._predictions(batch):
        assert torch.equal(prediction.logits[0], plain)
    (sample,) = tta.test_step(dict(inputs=batch, data_samples=[OccDataSample()]))
    torch.testing.assert_close(sample.pred_logits.exp(), plain[0].softmax(0))
    assert torch.equal(sample.pred_occ, plain[0].argmax(0))


def test_probabilities_are_averaged():
    model, batch = ColorModel(bias=torch.tensor([3.0, 0, 0]).view(1, 3, 1, 1, 1)), make_batch()
    plain = ColorModel().encode_decode(batch).logits[0]
    side = 3 * torch.linspace(0, 1, 8).view(8, 1, 1)
    expected = 0
    for bias in (side, side.flip(0)):
        logits = plain[0].clone()
        logits[0] += bias
        expected = expected + logits.softmax(0) / 2
    (sample,) = FlipTTA(model, axes=('x',), images=False).test_step(dict(inputs=batch, data_samples=[OccDataSample()]))
    torch.testing.assert_close(sample.pred_logits.exp(), expected)


def test_axes_have_to_be_symmetric():
    assert FlipTTA(ColorModel(LOPSIDED)).axes == (1,) and len(FlipTTA(ColorModel(LOPSIDED), images=False).copies()) == 2
    with pytest.raises(ValueError, match=r'range is \(0\.0'):
        FlipTTA(ColorModel(LOPSIDED), axes=('x',))
    with pytest.raises(ValueError, match="'z'"):
        FlipTTA(ColorModel(), axes=('z',))
    with pytest.raises(ValueError, match='encode_decode'):
        FlipTTA(type('Other', (nn.Module,), dict(test_step=None))())
    with pytest.raises(ValueError, match='along x'):
        mirror_grid(make_batch(), LOPSIDED, (0,))


def test_everything_of_a_batch_moves_along():
    batch = make_batch()
    labels = torch.randint(0, 3, (1, *GRID.shape))
    points = torch.randn(1, 5, 3)
    ones = torch.ones(1, 5)
    pixels = torch.randint(0, 12, (1, 2, GRID.num_voxels, 2))
    batch.labels, batch.masks, batch.points = labels, dict(camera=labels > 0), [points[0]]
    batch.depths = torch.rand(1, 2, 12, 24)
    batch.rays = Rays(points, nn.functional.normalize(points, dim=-1), ones, ones.bool())
    batch.voxel_pixels, batch.voxel_visible = pixels, pixels[..., 0] > 5
    once = mirror_grid(batch, GRID, (0, 1))
    assert torch.equal(once.labels, labels.flip(1, 2)) and torch.equal(once.masks['camera'], (labels > 0).flip(1, 2))
    signs = torch.tensor([-1.0, -1, 1])
    assert torch.equal(once.rays.origin, points * signs) and torch.equal(once.points[0], points[0] * signs)
    assert torch.equal(once.scene[0], torch.diag(signs))
    table = once.voxel_pixels.view(1, 2, *GRID.shape, 2).flip(2, 3).reshape(pixels.shape)
    assert torch.equal(table, pixels)
    flipped = flip_images(batch)
    assert torch.equal(flipped.depths[..., :20], batch.depths[..., :20].flip(-1))
    assert torch.equal(flipped.depths[..., 20:], batch.depths[..., 20:])
    assert torch.equal(flipped.voxel_pixels[..., 0], 19 - pixels[..., 0]) and flipped.labels is labels
    back = mirror_grid(flip_images(mirror_grid(flip_images(batch), GRID, (1,))), GRID, (1,))
    assert torch.equal(back.images, batch.images) and torch.equal(back.voxel_pixels, pixels)
    torch.testing.assert_close(back.cameras.ref2img, batch.cameras.ref2img)
    torch.testing.assert_close(back.scene, torch.eye(3)[None])


class Host(BaseOccHead):
    def __init__(self, grid, loss_occ=None):
        super().__init__(grid)
        self.classifier = nn.Linear(1, 1)

    def forward(self, scene):
        raise NotImplementedError


@pytest.mark.parametrize(('joint', 'rule'), [(False, 'threshold'), (False, 'free_score'), (True, 'argmax')])
def test_heads_with_a_density_decide_by_the_mean_density(joint, rule, monkeypatch):
    from mmdet3d.registry import MODELS

    monkeypatch.setitem(MODELS.module_dict, 'FlipTestHost', Host)
    head = DensityHead(GRID, dict(type='FlipTestHost'), 4, joint=joint, rule=rule, threshold=0.5)
    torch.manual_seed(2)
    predictions = [OccPrediction(**head.outputs(torch.randn(1, *GRID.shape, 4))) for _ in range(3)]
    merged = head.average(predictions)
    torch.testing.assert_close(merged.density, sum(p.density for p in predictions) / 3)
    one = head.average(predictions[:1])
    assert torch.equal(head.classify(one), head.classify(predictions[0]))
    if rule == 'free_score':
        torch.testing.assert_close(merged.logits[-1][:, 2], sum(p.logits[-1][:, 2] for p in predictions) / 3)
    assert torch.isfinite(merged.logits[-1]).all()
