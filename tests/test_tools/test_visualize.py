"""The drawing tool: label files, and a small model on two made-up frames."""

import importlib.util

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from occ_batches import cameras_of
from PIL import Image
from torch.utils.data import Dataset

from projects.occ.structures import OccDataSample, VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.visualization import VoxelPainter, cast_maps, read_scene_html
from projects.occ.visualization.view_cameras import look_at, project_matrix

SIZE = (64, 32)
CONFIG = """
default_scope = 'mmdet3d'
custom_imports = dict(imports=['projects.occ.models', 'projects.tpvformer', 'projects.gaussrender.aggregator'])
grid = dict(
    point_cloud_range=[-4, -4, -1, 4, 4, 1], voxel_size=1.0, shape=[8, 8, 2], frame='ego', free_index=2,
    class_names=['car', 'driveable_surface', 'free'])
model = dict(
    type='OccSegmentor',
    grid=grid,
    data_preprocessor=dict(type='OccDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3, pad_size_divisor=32),
    img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4, num_stages=4, out_indices=(2, 3)),
    img_neck=dict(type='mmdet.FPN', in_channels=[16, 32], out_channels=8, num_outs=2),
    view_encoder=dict(
        type='TPVFormerViewEncoder', embed_dims=8, num_cams=2, num_levels=2, num_layers=1, num_anchors=(2, 2, 2),
        self_attn=dict(num_heads=2), cross_attn=dict(num_heads=2, num_points=(2, 2, 2))),
    occ_head=dict(type='TPVFormerOccHead', in_dims=8, hidden_dims=8, out_dims=8, loss_occ=dict(type='OccupancyLoss')),
    AGGREGATOR
)
test_dataloader = dict(batch_size=1, dataset=dict(type='TwoFramesToDraw', folder=FOLDER))
visualizer = dict(
    type='OccVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')],
    panel_widths=dict(cameras=64, scene=80, rendered=64))
"""
AGGREGATOR = "aggregator=dict(type='GaussRenderAggregator', bev=dict(size=16)),"


@DATASETS.register_module()
class TwoFramesToDraw(Dataset):
    """Two cameras, ahead and behind, over a road with a car."""

    metainfo = dict(grid=None)

    def __init__(self, folder, tokens=('frame0', 'frame1')):
        self.folder, self.tokens = folder, tokens
        self.metainfo = dict(
            grid=dict(
                point_cloud_range=(-4, -4, -1, 4, 4, 1),
                voxel_size=1.0,
                shape=(8, 8, 2),
                frame='ego',
                free_index=2,
                class_names=('car', 'driveable_surface', 'free'),
            )
        )

    def __len__(self):
        return 2

    def __getitem__(self, index):
        sample = OccDataSample()
        sample.gt_occ = torch.full((8, 8, 2), 2, dtype=torch.uint8)
        sample.gt_occ[:, :, 0], sample.gt_occ[6, 3 + index, 1] = 1, 0
        ref2cam = np.stack([look_at((0, 0, 1), (4 * ahead, 0, 0.5)) for ahead in (1, -1)])
        cam2img = np.array([[[40.0, 0, 32], [0, 40, 16], [0, 0, 1]]] * 2)
        sample.set_metainfo(
            dict(
                ref2cam=ref2cam,
                cam2img=cam2img,
                ref2img=project_matrix(ref2cam, cam2img).astype(np.float32),
                img_wh=np.array([SIZE] * 2, np.float32),
                ori_img_wh=np.array([SIZE] * 2, np.float32),
                cam_names=['CAM_FRONT', 'CAM_BACK'],
                img_paths=[f'{self.folder}/{name}.png' for name in ('CAM_FRONT', 'CAM_BACK')],
                token=self.tokens[index],
                scene_name='scene-1',
            )
        )
        images = torch.full((2, 3, SIZE[1], SIZE[0]), 90, dtype=torch.uint8)
        inputs = dict(img=images, cameras=cameras_of(sample), img_wh=torch.from_numpy(sample.img_wh))
        return dict(inputs=inputs, data_samples=sample)


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('visualize', repo_root / 'tools' / 'visualize.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    """Configs with and without aggregator, and a checkpoint that fits both."""
    folder = tmp_path_factory.mktemp('frames')
    for name in ('CAM_FRONT', 'CAM_BACK'):
        Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)).save(folder / f'{name}.png')
    configs = {}
    for name, aggregator in (('rendered', AGGREGATOR), ('baseline', '')):
        configs[name] = str(folder / f'{name}.py')
        text = CONFIG.replace('AGGREGATOR', aggregator).replace('FOLDER', repr(str(folder)))
        (folder / f'{name}.py').write_text(text)
    cfg = Config.fromfile(configs['rendered'])
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), folder / 'weights.pth')
    return configs, str(folder / 'weights.pth')


@pytest.fixture
def label_file(tmp_path):
    labels = np.full((200, 200, 16), 17, np.uint8)
    labels[:, 90:110, 0] = 11
    labels[120:130, 95:99, 1:4] = 4
    path = tmp_path / 'token' / 'labels.npz'
    path.parent.mkdir()
    mask = np.ones_like(labels)
    np.savez_compressed(path, semantics=labels, mask_camera=mask, mask_lidar=mask)
    return path


def colors(path):
    return {tuple(color) for color in np.asarray(Image.open(path)).reshape(-1, 3)[::7]}


def test_draws_an_occ3d_label(tool, label_file, tmp_path, capsys):
    assert tool.main(['--npz', str(label_file), '--show-dir', str(tmp_path / 'out'), '--single']) == 0
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'token_gt_3d.png',
        'token_gt_bev.png',
        'token_scene.png',
    ]
    assert {(255, 0, 255), (0, 150, 245), (255, 255, 255)} <= colors(tmp_path / 'out' / 'token_gt_bev.png')
    assert (255, 0, 255) in colors(tmp_path / 'out' / 'token_scene.png')
    assert 'drawing' in capsys.readouterr().err


def test_draws_predictions_beside_the_label(tool, label_file, tmp_path):
    with np.load(label_file) as data:
        labels = data['semantics'].copy()
    labels[60:90, 90:110, 0] = 17
    for key in ('pred', 'arr_0'):
        np.savez_compressed(tmp_path / f'{key}.npz', **{key: labels})
    out = tmp_path / 'out'
    assert tool.main(['--npz', str(tmp_path / 'pred.npz'), '--gt', str(label_file), '--show-dir', str(out)]) == 0
    assert (213, 40, 60) in colors(out / 'pred_scene.png')  # missed
    assert tool.main(['--npz', str(tmp_path / 'arr_0.npz'), '--show-dir', str(out)]) == 0
    assert (213, 40, 60) not in colors(out / 'arr_0_scene.png')


def test_files_of_one_name_have_pages_of_their_own(tool, label_file, tmp_path):
    with np.load(label_file) as data:
        labels = data['semantics'].copy()
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        np.savez_compressed(tmp_path / name / 'pred.npz', pred=labels)
    paths = [str(tmp_path / name / 'pred.npz') for name in ('a', 'b')]
    assert tool.main(['--npz', *paths, '--show-dir', str(tmp_path / 'out')]) == 0
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a_pred_scene.png', 'b_pred_scene.png']
    assert tool.different_names([paths[0]]) == ['pred'] and tool.different_names([paths[0]] * 2) == ['pred_1', 'pred_2']
    assert tool.different_names(['x/a/labels.npz', 'x/b/labels.npz']) == ['a', 'b']


def test_files_are_drawn_on_the_grid_that_they_tell(tool, label_file, tmp_path, capfd):
    grid = BENCHMARKS['surroundocc'].grid
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 90:110, 8] = 11
    np.savez_compressed(tmp_path / 'told.npz', pred=labels, **grid.to_arrays())
    np.savez_compressed(tmp_path / 'silent.npz', pred=labels)
    out = ['--show-dir', str(tmp_path / 'out'), '--npz']
    assert tool.main([*out, str(tmp_path / 'told.npz')]) == 0
    assert 'grid: surroundocc' in capfd.readouterr().out
    assert tool.main([*out, str(tmp_path / 'silent.npz')]) == 0
    assert "class 0 ('others'), which is free space in surroundocc" in capfd.readouterr().out
    assert tool.main([*out, str(tmp_path / 'told.npz'), '--preset', 'occ3d']) == 1
    assert 'free_index 0 instead of 17' in capfd.readouterr().err
    assert tool.main([*out, str(tmp_path / 'told.npz'), '--gt', str(label_file)]) == 1


def test_bad_label_files(tool, label_file, tmp_path, capfd):
    def error(*arguments):
        assert tool.main(['--show-dir', str(tmp_path), *map(str, arguments)]) == 1
        return capfd.readouterr().err.strip().split('\n')[-1]

    np.savez(tmp_path / 'other.npz', wrong=np.zeros(3))
    (tmp_path / 'text.npz').write_text('nothing')
    text = error('--npz', tmp_path / 'other.npz')
    assert "found ['wrong']" in text
    assert 'is damaged or cut short' in error('--npz', tmp_path / 'text.npz')
    assert f"'{tmp_path / 'absent.npz'}' does not exist" in error('--npz', tmp_path / 'absent.npz')
    assert 'choose the grid with --preset' in error('--npz', label_file, '--preset', 'sscbench-kitti360')
    assert '--gt needs one label for each --npz file, got 1 for 2' in error('--npz', label_file, label_file, '--gt', label_file)
    assert 'give CONFIG and CHECKPOINT (or --pred FOLDER, or --labels), or label files with --npz' in error()
    assert '--no-pages leaves nothing to write without --video or --html' in error('--npz', label_file, '--no-pages')
    (tmp_path / 'empty.py').write_text('x = 1')
    assert 'has no grid' in error(tmp_path / 'empty.py', '--npz', label_file)


def test_draws_a_model_with_its_renderer(tool, frames, tmp_path):
    configs, weights = frames
    assert tool.main([configs['rendered'], weights, '--show-dir', str(tmp_path), '--indices', '1', '--single']) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['frame1']
    assert sorted(p.name for p in (tmp_path / 'frame1').iterdir()) == ['cameras.png', 'rendered.png', 'scene.png', 'single']
    single = {path.name for path in (tmp_path / 'frame1' / 'single').iterdir()}
    assert {'CAM_FRONT_image.png', 'CAM_BACK_gt_depth.png', 'CAM_FRONT_pred_classes.png', 'gt_bev.png', 'pred_3d.png'} <= single
    seen = np.asarray(Image.open(tmp_path / 'frame1' / 'single' / 'CAM_FRONT_gt_classes.png'))
    assert seen.shape == (32, 64, 3) and tuple(seen[-1, 32]) == (255, 0, 255)
    # the middle of the car's near face: 2 m ahead, 0.5 m to the left, 0.5 m below the camera
    u, v, d, _ = TwoFramesToDraw('')[1]['data_samples'].ref2img[0] @ [2, 0.5, 0.5, 1]
    assert tuple(seen[int(v / d), int(u / d)]) == (0, 150, 245)
    assert tuple(seen[int(v / d), 63 - int(u / d)]) != (0, 150, 245)


def test_maps_by_rays_need_no_aggregator(tool, frames, tmp_path):
    configs, weights = frames
    rays = tmp_path / 'rays'
    assert tool.main([configs['baseline'], weights, '--show-dir', str(rays), '--indices', '1', '--single']) == 0
    seen = np.asarray(Image.open(rays / 'frame1' / 'single' / 'CAM_FRONT_gt_classes.png'))
    assert tuple(seen[-1, 32]) == (255, 0, 255)
    # without --indices the whole test set
    assert tool.main([configs['baseline'], weights, '--show-dir', str(tmp_path / 'none'), '--maps', 'none']) == 0
    assert sorted(path.name for path in (tmp_path / 'none').iterdir()) == ['frame0', 'frame1']
    assert sorted(path.name for path in (tmp_path / 'none' / 'frame0').iterdir()) == ['cameras.png', 'scene.png']


def test_cast_maps_agree_with_the_geometry():
    item = TwoFramesToDraw('')[0]['data_samples']
    maps = cast_maps(item, VoxelPainter(VoxelGrid.build(TwoFramesToDraw('').metainfo['grid'])))
    assert maps.gt_classes.shape == (2, 32, 64) and maps.pred_classes is None
    # car of frame 0: x 2..3, y -1..0, z 0..1; its near face is 2 m ahead, right of the middle; the camera tilts down a little
    assert maps.gt_classes[0, 20, 40] == 0
    assert maps.gt_depth[0, 20, 40] == pytest.approx(2.0, abs=0.1)
    assert (maps.gt_classes[1] != 0).all()


def test_bad_models(tool, frames, tmp_path, capfd):
    configs, weights = frames

    def error(*arguments):
        assert tool.main([*map(str, arguments), '--show-dir', str(tmp_path)]) == 1
        return capfd.readouterr().err.strip().split('\n')[-1]

    assert 'the test set has 2 frames, 0 to 1' in error(configs['baseline'], weights, '--indices', 5)
    assert 'has no aggregator; use --maps rays' in error(configs['baseline'], weights, '--maps', 'gaussians')
    assert 'absent.pth' in error(configs['baseline'], 'absent.pth')
    torch.save({'wrong.weight': torch.zeros(2)}, tmp_path / 'wrong.pth')
    assert 'the checkpoint does not fit the model of this config' in error(configs['baseline'], tmp_path / 'wrong.pth')


@pytest.mark.parametrize('token', ['x/..', '../x', '/x', 'x\0y', 'x\ny', '\ud800', 'x' * 300])
def test_tokens_lead_nowhere_else(tool, frames, tmp_path, capfd, token):
    config = tmp_path / 'hostile.py'
    config.write_text(
        f"_base_ = [{frames[0]['baseline']!r}]\ntest_dataloader = dict(dataset=dict(tokens=[{token!r}, 'good']))\n"
    )
    out = tmp_path / 'around' / 'out'
    assert tool.main([str(config), frames[1], '--show-dir', str(out), '--indices', '0']) != 0
    assert 'token' in capfd.readouterr().err
    written = [path for path in (tmp_path / 'around').rglob('*') if path.suffix == '.png']
    assert written == [] and {path.name for path in tmp_path.iterdir()} <= {'hostile.py', 'around'}


def test_tokens_of_one_ending_have_folders_of_their_own(tool, frames, tmp_path):
    config = tmp_path / 'nested.py'
    config.write_text(f"_base_ = [{frames[0]['baseline']!r}]\ntest_dataloader = dict(dataset=dict(tokens=['a/x', 'b/x']))\n")
    out = tmp_path / 'out'
    assert tool.main([str(config), frames[1], '--show-dir', str(out)]) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob('scene.png')) == ['a/x/scene.png', 'b/x/scene.png']


def test_saved_predictions_and_labels_without_a_model(tool, frames, tmp_path, capfd):
    config = frames[0]['baseline']
    pred = np.full((8, 8, 2), 2, np.uint8)
    pred[:, :, 0] = 1
    for token in ('frame0', 'frame1'):
        np.savez_compressed(tmp_path / f'{token}.npz', pred=pred)
    out = tmp_path / 'out'
    arguments = [config, '--pred', str(tmp_path), '--show-dir', str(out), '--html', '--video', 'gif', '--video-width', '80']
    assert tool.main(arguments) == 0
    assert {p.name for p in out.iterdir() if p.suffix != '.py'} >= {'frame0', 'frame1', 'frames', 'scene-1.gif', 'scene-1.html'}
    assert sorted(p.name for p in (out / 'frame0').iterdir()) == ['cameras.png', 'rendered.png', 'scene.png']
    grid, pages = read_scene_html(out / 'scene-1.html')
    assert [page.name for page in pages] == ['frame0', 'frame1'] and grid.shape == (8, 8, 2)
    np.testing.assert_array_equal(pages[1].pred, pred)
    np.testing.assert_array_equal(pages[1].gt, TwoFramesToDraw('')[1]['data_samples'].gt_occ)
    with Image.open(out / 'scene-1.gif') as gif:
        assert gif.n_frames == 2 and gif.info['duration'] == 500
    # labels alone: one view instead of three, seen by a camera of the frame
    only = tmp_path / 'labels'
    arguments = [
        '--labels',
        '--show-dir',
        str(only),
        '--no-pages',
        '--video',
        'gif',
        '--view',
        'CAM_BACK',
        '--video-width',
        '64',
    ]
    assert tool.main([config, *arguments]) == 0
    picture = np.asarray(Image.open(only / 'frames' / 'scene-1' / '000000.png'))
    assert (255, 0, 255) in colors(only / 'frames' / 'scene-1' / '000000.png') and picture.shape[1] < 3 * 80
    assert not (only / 'frame0').exists()
    (tmp_path / 'frame1.npz').unlink()
    assert tool.main([config, '--pred', str(tmp_path), '--show-dir', str(only), '--no-pages', '--html']) == 1
    assert f"'{tmp_path / 'frame1.npz'}' does not exist" in capfd.readouterr().err


def test_a_single_label_is_filmed_from_all_sides(tool, label_file, tmp_path):
    out = tmp_path / 'out'
    arguments = ['--npz', str(label_file), '--show-dir', str(out), '--no-pages', '--video', 'mp4', '--steps', '4']
    assert tool.main([*arguments, '--video-width', '96', '--html']) == 0
    assert sorted(p.name for p in out.iterdir()) == ['frames', 'token.html', 'token.mp4']
    pictures = [np.asarray(Image.open(p)) for p in sorted((out / 'frames' / 'token').iterdir())]
    assert len(pictures) == 4 and all((a != b).any() for a, b in zip(pictures, pictures[1:]))
    with np.load(label_file) as data:
        np.testing.assert_array_equal(read_scene_html(out / 'token.html')[1][0].gt, data['semantics'])


def test_long_scenes_go_on_in_another_page(tool, label_file, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'FRAMES_PER_PAGE', 2)
    names = []
    for i in range(3):
        (tmp_path / 'set').mkdir(exist_ok=True)
        names.append(str(tmp_path / 'set' / f'f{i}.npz'))
        np.savez(names[-1], semantics=np.full((200, 200, 16), i, np.uint8))
    assert tool.main(['--npz', *names, '--show-dir', str(tmp_path / 'out'), '--no-pages', '--html']) == 0
    pages = {p.name: [int(f.gt.max()) for f in read_scene_html(p)[1]] for p in (tmp_path / 'out').iterdir()}
    assert pages == {'set.html': [0, 1], 'set_2.html': [2]}
