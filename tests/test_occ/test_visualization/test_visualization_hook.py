"""The hook chooses samples and names files."""

from types import SimpleNamespace

import numpy as np
import pytest
from mmdet3d.registry import HOOKS
from mmengine.visualization import Visualizer
from PIL import Image

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


RUNNER = SimpleNamespace(iter=120, test_dataloader=SimpleNamespace(dataset=range(11)))


def test_every_third_sample_of_all_batches(drawn):
    hook = OccVisualizationHook(draw=True, interval=3)
    for epoch in range(2):
        hook.before_val_epoch(RUNNER)
        for index in range(4):
            hook.after_val_iter(RUNNER, index, *batch(2 * index))
        assert [call.name for call in drawn] == ['scene/token0', 'scene/token3', 'scene/token6'] * (epoch + 1)
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
    assert drawn[0].out_file == tmp_path / 'scene/token5.png' and drawn[0].draw_gt is False
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


def film(hook, counts, monkeypatch, ranks):
    """Runs a test epoch of one process per rank; every process sees its share of ``counts`` batches of two."""
    pictures = []

    def comparison(sample, path, position, title):
        pictures.append((position, title, path.turn))
        return np.full((8, 12, 3), 10 * position, np.uint8)

    monkeypatch.setattr(
        visualization_hook, 'Visualizer', SimpleNamespace(get_current_instance=lambda: SimpleNamespace(comparison=comparison))
    )
    records = []
    for rank in range(ranks):
        monkeypatch.setattr(visualization_hook, 'get_dist_info', lambda rank=rank: (rank, ranks))
        hook.before_test_epoch(RUNNER)
        for index in range(counts):
            data, samples = batch(2 * index)
            for i, sample in enumerate(samples):
                sample.set_metainfo(dict(scene_name=f'scene-{index // 2}', token=f'r{rank}b{index}i{i}'))
            hook.after_test_iter(RUNNER, index, data, samples)
        records.append(hook.videos.records)
        hook.videos.records = []
    return pictures, records


def test_videos_of_all_samples_of_two_processes(tmp_path, monkeypatch):
    hook = OccVisualizationHook(draw=True, interval=10**6, out_dir=str(tmp_path), video='gif', path=dict(turn=3.0), fps=4)
    hook._draw_batch = lambda *arguments: setattr(hook, '_seen', hook._seen + 2)
    pictures, records = film(hook, 3, monkeypatch, ranks=2)
    # rank 0 has the even samples of the set of eleven, rank 1 the odd ones and a repeated one
    assert [p[0] for p in pictures] == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9] and pictures[1][1:] == ('r0b0i1', 3.0)
    monkeypatch.setattr(visualization_hook, 'all_gather_object', lambda own: records)
    logged = []
    runner = SimpleNamespace(logger=SimpleNamespace(info=logged.append))
    hook.after_test_epoch(runner)  # as rank 1, which writes nothing
    assert not logged and not list(tmp_path.glob('*.gif'))
    monkeypatch.setattr(visualization_hook, 'get_dist_info', lambda: (0, 2))
    hook.after_test_epoch(runner)
    assert logged == [f'wrote {tmp_path / "scene-0.gif"}', f'wrote {tmp_path / "scene-1.gif"}']
    with Image.open(tmp_path / 'scene-0.gif') as gif:
        assert gif.n_frames == 8 and gif.info['duration'] == 250


def test_videos_need_a_folder():
    with pytest.raises(ValueError, match="video='mp4' needs out_dir"):
        OccVisualizationHook(video='mp4')
