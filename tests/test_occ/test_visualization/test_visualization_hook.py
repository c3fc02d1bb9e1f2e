"""The hook chooses samples and names files."""

from types import SimpleNamespace

import pytest
from mmdet3d.registry import HOOKS
from mmengine.visualization import Visualizer

from projects.occ.structures import OccDataSample
from projects.occ.visualization import visualization_hook
from projects.occ.visualization.visualization_hook import OccVisualizationHook


@pytest.fixture
def drawn(monkeypatch):
    calls = []

    class Recorder:
        def add_datasample(self, name, images, data_sample, **options):
            calls.append(SimpleNamespace(name=name, images=images, sample=data_sample, **options))

    monkeypatch.setattr(visualization_hook, 'Visualizer', SimpleNamespace(get_current_instance=lambda: Recorder()))
    assert issubclass(HOOKS.get('OccVisualizationHook'), OccVisualizationHook) and Visualizer is not None
    return calls


def batch(first, count=2):
    samples = [OccDataSample(metainfo=dict(token=f'scene/token{first + i}')) for i in range(count)]
    return dict(inputs=dict(img=[f'img{first + i}' for i in range(count)])), samples


RUNNER = SimpleNamespace(iter=120)


def test_every_third_sample_of_all_batches(drawn):
    hook = OccVisualizationHook(draw=True, interval=3)
    for epoch in range(2):
        hook.before_val_epoch(RUNNER)
        for index in range(4):
            hook.after_val_iter(RUNNER, index, *batch(2 * index))
        assert [call.name for call in drawn] == ['token0', 'token3', 'token6'] * (epoch + 1)
    assert drawn[0].step == 120 and drawn[0].out_file is None
    # the original image files do not exist here: the network's images are used
    assert drawn[1].images == 'img3'


def test_test_loop_writes_files(drawn, tmp_path):
    hook = OccVisualizationHook(draw=True, interval=1, out_dir=str(tmp_path), draw_gt=False)
    hook.before_test_epoch(RUNNER)
    data, samples = batch(5, 1)
    image = tmp_path / 'image.jpg'
    image.write_bytes(b'')
    samples[0].set_metainfo(dict(img_paths=[str(image)]))
    hook.after_test_iter(RUNNER, 9, data, samples)
    assert drawn[0].out_file == tmp_path / 'token5.png' and drawn[0].draw_gt is False
    assert drawn[0].images is None and drawn[0].step == 9
    hook.original_images = False
    hook.after_test_iter(RUNNER, 10, data, samples)
    assert drawn[1].images == 'img5'


def test_off_by_default(drawn):
    hook = OccVisualizationHook()
    hook.before_test_epoch(RUNNER)
    hook.after_test_iter(RUNNER, 0, *batch(0))
    hook.after_val_iter(RUNNER, 0, *batch(0))
    assert not drawn


def test_bad_interval():
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        OccVisualizationHook(interval=0)
