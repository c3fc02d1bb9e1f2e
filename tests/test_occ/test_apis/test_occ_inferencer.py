"""OccInferencer: the prediction of a test run, from files and arrays; outputs and errors. Also tools/infer.py."""

import copy
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

from projects.occ.apis import OccInferencer
from projects.occ.engine.errors import CheckpointError
from projects.streets import build_config, generate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_engine'))

from toy_occupancy import load_tool  # noqa: E402

CONFIG = 'configs/debug/surroundocc_tiny_synthetic-occ3d.py'


@pytest.fixture(scope='module')
def setting(tmp_path_factory, request):
    """Config, checkpoint with random weights, a data set item, what the model predicts for it, and the same frame by hand."""
    root = tmp_path_factory.mktemp('street')
    generate(build_config(formats=('occ3d',), preset='tiny', image_size=(48, 28), scenes_train=1, scenes_val=1, frames=1), root)
    cfg = Config.fromfile(request.config.rootpath / CONFIG)
    cfg.test_dataloader.dataset.update(data_root=f'{root}/', ego_motion_compensation=True)
    cfg.visualizer.panel_widths = dict(cameras=80, scene=120)
    cfg.dump(root / 'config.py')
    torch.manual_seed(3)
    model = MODELS.build(cfg.model)
    model.eval()
    torch.save(dict(state_dict=model.state_dict()), root / 'random.pth')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    with torch.no_grad():
        expected = model.test_step(pseudo_collate([dataset[0]]))[0].pred_occ.numpy()
    info = dataset.get_data_info(0)
    frame = dict(
        token='my/frame',
        images=info['img_paths'],
        cam2img=info['cam2img'],
        ref2cam=info['ref2cam'],
        cam_names=info['cam_names'],
    )
    return dict(root=root, cfg=cfg, checkpoint=root / 'random.pth', expected=expected, frame=frame)


@pytest.fixture(scope='module')
def inferencer(setting):
    return OccInferencer(setting['cfg'], setting['checkpoint'], 'cpu', show_progress=False)


def test_same_as_a_test_run_from_files_and_arrays(inferencer, setting):
    frame, expected = setting['frame'], setting['expected']
    assert len(np.unique(expected)) > 2
    arrays = dict(frame, images=[cv2.imread(path) for path in frame['images']], cam2ref=np.linalg.inv(frame['ref2cam']))
    del arrays['ref2cam']
    results = inferencer([frame, arrays], batch_size=2)['predictions']
    for result in results:
        np.testing.assert_array_equal(result['pred_occ'], expected)
    assert results[0]['token'] == 'my/frame' and results[0]['grid'].shape == expected.shape
    sample = inferencer(frame, return_datasamples=True)['predictions'][0]
    np.testing.assert_array_equal(sample.pred_occ.numpy(), expected)


def test_outputs(inferencer, setting, tmp_path):
    frame = setting['frame']
    arrays = dict(frame, token='arrays', images=[cv2.imread(path) for path in frame['images']])
    inferencer(frame, out_dir=tmp_path)
    result = inferencer(arrays, out_dir=tmp_path, draw=True)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.*')) == [
        'arrays.npz',
        'arrays_cameras.png',
        'arrays_scene.png',
        'my/frame.npz',
    ]
    assert sorted(result['visualization'][0]) == ['cameras', 'scene']
    grid = inferencer.grid
    with np.load(tmp_path / 'my' / 'frame.npz', allow_pickle=False) as file:
        np.testing.assert_array_equal(file['pred'], setting['expected'])
        assert tuple(file['point_cloud_range']) == grid.point_cloud_range and tuple(file['voxel_size']) == grid.voxel_size
        assert tuple(file['class_names']) == grid.class_names and str(file['frame']) == 'ego' and file['free_index'] == 17
        np.testing.assert_allclose(file['ref2cam'], frame['ref2cam'], atol=1e-5)
        np.testing.assert_allclose(file['cam2img'], frame['cam2img'], atol=1e-4)
    with pytest.raises(ValueError, match=r"relative path.*'\.\./x'"):
        inferencer(dict(frame, token='../x'), out_dir=tmp_path)


def test_depth_maps_reach_the_network(setting, monkeypatch):
    inferencer = OccInferencer(setting['cfg'], setting['checkpoint'], 'cpu', show_progress=False)
    frame = setting['frame']
    seen = []
    monkeypatch.setattr(inferencer.model, 'test_step', lambda batch: seen.append(batch) or [])
    inferencer(dict(frame, depth=np.full((6, 28, 48), 7.0)))
    depth = seen[0]['inputs']['depth'][0]
    assert depth.shape == seen[0]['inputs']['img'][0][:, 0].shape and depth.shape[0] == 6
    assert float(depth.min()) == float(depth.max()) == 7
    with pytest.raises(ValueError, match=r'the depth map of CAM_FRONT has the shape \(5, 5\), its image \(28, 48\)'):
        inferencer(dict(frame, depth=np.ones((6, 5, 5))))
    inferencer.needs_depth = True
    with pytest.raises(ValueError, match="frame 'my/frame' has no depth maps, which this model needs; add the key depth"):
        inferencer(frame)


def test_a_config_with_a_depth_loader_needs_depth(setting):
    cfg = copy.deepcopy(setting['cfg'])
    cfg.test_dataloader.dataset.pipeline = [dict(type='LoadDepthMaps'), *cfg.test_dataloader.dataset.pipeline]
    assert OccInferencer(cfg, setting['checkpoint'], 'cpu').needs_depth


def test_another_number_of_cameras(inferencer, setting):
    frame = setting['frame']
    four = {key: value[:4] for key, value in frame.items() if key != 'token'}
    with pytest.raises(ValueError, match=r"frame 'frame_000000' has 4 cameras, but the model was built for 6 \(model.view_enc"):
        inferencer(four)
    cfg = copy.deepcopy(setting['cfg'])
    cfg.model.view_encoder.update(num_cams=4, num_cam_embeds=6)
    with torch.no_grad():
        result = OccInferencer(cfg, setting['checkpoint'], 'cpu', show_progress=False)(four)['predictions'][0]
    assert result['pred_occ'].shape == setting['expected'].shape


def test_weights_must_fit(setting, tmp_path):
    torch.save({'some.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='the checkpoint does not fit the model of this config: 0 of'):
        OccInferencer(setting['cfg'], tmp_path / 'other.pth', 'cpu')
    with pytest.raises(CheckpointError, match='absent.pth.* does not exist'):
        OccInferencer(setting['cfg'], tmp_path / 'absent.pth', 'cpu')
    cfg = copy.deepcopy(setting['cfg'])
    cfg.test_dataloader = dict()
    with pytest.raises(ValueError, match='no test_dataloader.dataset with grid and pipeline'):
        OccInferencer(cfg)


def write_json(setting, path, **changes):
    fields = {**setting['frame'], 'token': 'mine', **changes}
    path.write_text(json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in fields.items()}))
    return path


def test_the_command(setting, tmp_path, capsys):
    path = write_json(setting, tmp_path / 'frames.json')
    config, checkpoint = str(setting['root'] / 'config.py'), str(setting['checkpoint'])
    infer = load_tool('infer')
    assert infer.main([config, checkpoint, str(path), '--out', str(tmp_path / 'out'), '--device', 'cpu']) == 0
    assert sorted(item.name for item in (tmp_path / 'out').iterdir()) == ['mine.npz', 'mine_cameras.png', 'mine_scene.png']
    with np.load(tmp_path / 'out' / 'mine.npz') as file:
        np.testing.assert_array_equal(file['pred'], setting['expected'])
    arguments = [str(path), '--out', str(tmp_path / 'other'), '--device', 'cpu', '--no-pictures']
    assert infer.main([config, checkpoint, *arguments]) == 0
    assert [item.name for item in (tmp_path / 'other').iterdir()] == ['mine.npz']
    write_json(setting, path, cam_name=[])
    for broken, message in (
        ([config, checkpoint], "unknown key 'cam_name'; did you mean 'cam_names'?"),
        (['absent.py', checkpoint], "config 'absent.py' does not exist"),
    ):
        assert infer.main([*broken, *arguments]) == 1
        assert message in capsys.readouterr().err
        write_json(setting, path)
    arguments[arguments.index('cpu')] = 'foo'
    assert infer.main([config, checkpoint, *arguments]) == 1
    assert "device 'foo' cannot be used" in capsys.readouterr().err
    arguments[arguments.index('foo')] = 'cpu'
    assert infer.main([config, 'absent.pth', *arguments]) == 1
    assert "checkpoint 'absent.pth' does not exist" in capsys.readouterr().err


def test_the_tool_runs_no_text_of_a_checkpoint_and_refuses_its_objects(setting, tmp_path, capfd):
    from checkpoint_files import with_code_texts

    mark, frame = tmp_path / 'mark', setting['frame']
    (tmp_path / 'frames.json').write_text(
        json.dumps(dict(frame, **{k: np.asarray(frame[k]).tolist() for k in ('cam2img', 'ref2cam')}))
    )
    config, common = str(setting['root'] / 'config.py'), (str(tmp_path / 'frames.json'), '--out', str(tmp_path / 'out'))
    infer = load_tool('infer')
    bad = with_code_texts(setting['checkpoint'], tmp_path / 'bad.pth', mark)
    assert infer.main([config, str(bad), *common, '--device', 'cpu', '--no-pictures']) == 0
    assert (tmp_path / 'out' / 'my' / 'frame.npz').is_file() and not mark.exists()

    class Attack:
        def __reduce__(self):
            return Path(mark).touch, ()

    torch.save(dict(state_dict=torch.load(setting['checkpoint'], weights_only=True)['state_dict'], more=Attack()), bad)
    assert infer.main([config, str(bad), *common, '--device', 'cpu', '--no-pictures']) == 1
    assert 'nothing was loaded' in capfd.readouterr().err and not mark.exists()
