from types import SimpleNamespace

import pytest
import torch
from torch import nn

from projects.occ.engine import OccError, TeacherStudentHook
from projects.occ.structures import Cameras, OccBatch, OccDataSample, OccPrediction, VoxelGrid

GRID = VoxelGrid((-2, -2, -1, 2, 2, 1), 1.0, (4, 4, 2), 'ego', 2, class_names=('car', 'road', 'free'))


class Host(nn.Module):
    """One weight per class; the images of a sample decide which voxels speak up."""

    def __init__(self):
        super().__init__()
        self.grid = GRID
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))
        self.noise = nn.Dropout(0.5)
        self.view_encoder = nn.Identity()
        self.occ_head = nn.Module()
        self.occ_head.predict_labels = lambda prediction: prediction.logits[-1].argmax(1)
        self.seen = []

    def data_preprocessor(self, data, training):
        images = torch.stack(data['inputs']['img'])
        assert not training and len(images) == len(data['data_samples'])
        cameras = Cameras(
            torch.eye(4).expand(len(images), 1, 4, 4),
            torch.eye(3).expand(len(images), 1, 3, 3),
            torch.ones(len(images), 1, 2).long(),
        )
        masks = dict(camera=torch.stack([sample.mask_camera for sample in data['data_samples']]))
        return dict(inputs=OccBatch(cameras=cameras, images=images, masks=masks), data_samples=data['data_samples'])

    def encode_decode(self, batch):
        scene = self.noise(batch.images)[:, None] * self.weight.view(1, 3, 1, 1, 1)
        return OccPrediction(logits=[scene], voxel_feats=scene * 2)


def runner_of(model, batch_size=2):
    return SimpleNamespace(model=model, iter=0, epoch=0, max_iters=9, train_dataloader=SimpleNamespace(batch_size=batch_size))


def batch_of(flags):
    images, samples = [], []
    for number, flag in enumerate(flags):
        image = torch.zeros(GRID.shape)
        image[number % 4] = 5.0
        mask = torch.ones(GRID.shape, dtype=torch.bool)
        mask[..., 0] = False
        sample = OccDataSample(mask_camera=mask)
        if flag:
            sample.set_metainfo(dict(unlabelled=True))
        images.append(image)
        samples.append(sample)
    return dict(inputs=dict(img=images, extra=list(range(len(flags)))), data_samples=samples)


def test_the_teacher_is_the_average_and_labels_what_it_is_sure_of():
    model = Host()
    hook = TeacherStudentHook(confidence=0.9, ema_type='ExponentialMovingAverage', momentum=0.5)
    runner = runner_of(model)
    hook.before_run(runner)
    hook.before_train(runner)
    data = batch_of([False, True, False, True])
    hook.before_train_iter(runner, 0, data)
    teacher = data['inputs']['teacher']
    assert teacher.index.tolist() == [1, 3] and not teacher.feats.requires_grad
    for row, place in enumerate((1, 3)):
        # softmax of (5, 0, 0) is 0.987, of (0, 0, 0) a third
        expected = torch.full(GRID.shape, 255)
        expected[place, :, 1] = 0
        assert torch.equal(teacher.labels[row], expected)
        # without dropout
        assert set(teacher.feats[row].unique().tolist()) == {0.0, 10.0}
    everywhere = batch_of([True])
    hook.mask = 'none'
    hook.before_train_iter(runner, 0, everywhere)
    assert (everywhere['inputs']['teacher'].labels != 255).sum() == 8
    # the first update copies, the second one takes half of the way
    for weight in (1.0, 0.0):
        model.weight.data[0] = weight
        hook.after_train_iter(runner, 0)
    hook.before_train_iter(runner, 0, data := batch_of([True]))
    assert data['inputs']['teacher'].feats.max() == 5.0
    labelled = batch_of([False, False])
    hook.before_train_iter(runner, 0, labelled)
    assert 'teacher' not in labelled['inputs']


def test_bad_settings_are_one_sentence():
    hook = TeacherStudentHook(depth_injection='one_hot')
    hook.before_run(runner_of(Host()))
    with pytest.raises(OccError, match='depth_injection.*Identity has none'):
        hook.before_train(runner_of(Host()))
    hook = TeacherStudentHook()
    hook.before_run(runner_of(Host()))
    with pytest.raises(OccError, match='batch_size is 3'):
        hook.before_train(runner_of(Host(), 3))
    for settings in (dict(confidence=2), dict(mask='lidar')):
        with pytest.raises(OccError, match='TeacherStudentHook'):
            TeacherStudentHook(**settings)


def test_features_have_to_be_there():
    model = Host()
    hook = TeacherStudentHook()
    hook.before_run(runner_of(model))
    teacher = hook.ema_model.module
    plain = teacher.encode_decode
    teacher.encode_decode = lambda batch: OccPrediction(logits=plain(batch).logits)
    with pytest.raises(OccError, match='features'):
        hook.before_train_iter(runner_of(model), 0, batch_of([True]))
    hook.features = False
    hook.before_train_iter(runner_of(model), 0, data := batch_of([True]))
    assert data['inputs']['teacher'].feats is None
