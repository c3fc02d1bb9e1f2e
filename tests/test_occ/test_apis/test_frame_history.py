"""A drive frame by frame: the prediction of a test run that reads the earlier frames from disk."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.occ.apis import OccInferencer, read_frames
from projects.occ.apis.frame_history import FrameHistory
from projects.streets import build_config, generate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_engine'))

from toy_occupancy import load_tool  # noqa: E402

CONFIG = 'configs/debug/bevdet_tiny_synthetic-occ3d.py'


@pytest.fixture(scope='module')
def drive(tmp_path_factory, request):
    """Config, checkpoint with random weights, the frames of a drive by hand, and what a test run predicts for them."""
    root = tmp_path_factory.mktemp('drive')
    streets = build_config(formats=('occ3d',), preset='tiny', image_size=(64, 36), scenes_train=0, scenes_val=1, frames=3)
    generate(streets, root, workers=1, progress=False)
    cfg = Config.fromfile(request.config.rootpath / CONFIG)
    cfg.test_dataloader.dataset.data_root = f'{root}/'
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'ResizeCropFlipImages':
            step.final_wh = [64, 32]
    cfg.visualizer.panel_widths = dict(cameras=80, scene=120)
    cfg.dump(root / 'config.py')
    torch.manual_seed(3)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        for parameter in model.view_encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    torch.save(dict(state_dict=model.state_dict()), root / 'random.pth')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    frames, expected = [], []
    for i in range(len(dataset)):
        with torch.no_grad():
            expected.append(model.test_step(pseudo_collate([dataset[i]]))[0].pred_occ.numpy())
        info = dataset.get_data_info(i)
        frames.append(
            dict(
                token=f'frame{i}',
                scene='one',
                images=info['img_paths'][:6],
                cam2img=info['cam2img'][:6],
                ref2cam=info['ref2cam'][:6],
                cam_names=info['cam_names'][:6],
                ref2global=info['ego2global'],
            )
        )
    return dict(root=root, cfg=cfg, frames=frames, expected=expected)


@pytest.fixture
def inferencer(drive):
    return OccInferencer(drive['cfg'], drive['root'] / 'random.pth', 'cpu', show_progress=False)


def test_a_drive_equals_a_test_run(inferencer, drive):
    frames, expected = drive['frames'], drive['expected']
    for result, labels in zip(inferencer(frames, batch_size=2)['predictions'], expected):
        np.testing.assert_array_equal(result['pred_occ'], labels)
    # frame by frame, as a vehicle takes them, from arrays
    inferencer.history.clear()
    for frame, labels in zip(frames, expected):
        arrays = dict(frame, images=[cv2.imread(path) for path in frame['images']])
        np.testing.assert_array_equal(inferencer(arrays)['predictions'][0]['pred_occ'], labels)
    assert len(inferencer.history.earlier) == 2


def test_another_drive_starts_anew(inferencer, drive):
    frames, expected = drive['frames'], drive['expected']
    inferencer(frames[:2])
    first = inferencer(dict(frames[2], scene='two'))['predictions'][0]['pred_occ']
    inferencer.history.clear()
    np.testing.assert_array_equal(inferencer(frames[2])['predictions'][0]['pred_occ'], first)
    assert (first != expected[2]).any()
    unplaced = {key: value for key, value in frames[2].items() if key != 'ref2global'}
    inferencer(frames[1])
    np.testing.assert_array_equal(inferencer(unplaced)['predictions'][0]['pred_occ'], first)
    assert not inferencer.history.earlier


def test_the_command_and_its_speed(drive, tmp_path, capsys):
    frames = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in frame.items()} for frame in drive['frames']]
    export = [str(drive['root'] / 'config.py'), str(tmp_path / 'exported.json')]
    assert load_tool('dev/export_frames').main([*export, '--scene', 'scene-0001']) == 0
    exported = json.loads((tmp_path / 'exported.json').read_text())['frames']
    assert [frame['token'] for frame in exported] == [f'scene-0001/{i:04d}' for i in range(3)]
    for ours, theirs in zip(frames, exported):
        assert {**theirs, 'token': ours['token'], 'scene': 'one'} == ours
    assert load_tool('dev/export_frames').main([*export, '--scene', 'other']) == 1
    assert "no scene 'other'" in capsys.readouterr().err
    (tmp_path / 'frames.json').write_text(json.dumps(frames))
    assert read_frames(tmp_path / 'frames.json')[1].scene == 'one'
    config, checkpoint = str(drive['root'] / 'config.py'), str(drive['root'] / 'random.pth')
    arguments = [config, checkpoint, str(tmp_path / 'frames.json'), '--out', str(tmp_path / 'out'), '--device', 'cpu']
    assert load_tool('infer').main([*arguments, '--fps']) == 0
    for i, labels in enumerate(drive['expected']):
        with np.load(tmp_path / 'out' / f'frame{i}.npz') as file:
            np.testing.assert_array_equal(file['pred'], labels)
        assert (tmp_path / 'out' / f'frame{i}_scene.png').is_file()
    speed = json.loads((tmp_path / 'out' / 'fps.json').read_text())
    assert speed['frames'] == 2 and 0 < speed['seconds_network'] < speed['seconds_prediction']
    assert speed['fps'] == pytest.approx(1 / speed['seconds_prediction']) and speed['processor']
    assert 'frames a second' in capsys.readouterr().out


def test_what_cannot_be_seen_from_here_is_refused():
    with pytest.raises(ValueError, match='earlier'):
        FrameHistory((0, 1), 'ego')
    assert FrameHistory((0,), 'ego').length == 0
