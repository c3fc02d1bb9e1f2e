"""OccVisualizer inside mmengine."""

import io

import numpy as np
import pytest
import torch
from mmdet3d.registry import VISUALIZERS
from PIL import Image

from projects.occ.structures import OccDataSample
from projects.occ.visualization import CameraPath, OccVisualizer, RenderedMaps, cast_maps
from projects.occ.visualization.occ_visualizer import original_images
from projects.occ.visualization.view_cameras import look_at, project_matrix

GRID = dict(
    point_cloud_range=(-4, -4, -1, 4, 4, 1),
    voxel_size=1.0,
    shape=(8, 8, 2),
    frame='ego',
    free_index=2,
    class_names=('car', 'driveable_surface', 'free'),
)
SMALL = dict(cameras=96, scene=160, rendered=96)
RED = (213, 40, 60)  # missed


@pytest.fixture
def sample(tmp_path):
    data = OccDataSample()
    gt = np.full((8, 8, 2), 2, np.uint8)
    gt[:, :, 0], gt[6, 3:5, 1] = 1, 0
    data.gt_occ = torch.from_numpy(gt)
    data.pred_occ = torch.from_numpy(np.where(gt == 0, 2, gt))
    data.mask_camera = torch.ones(8, 8, 2, dtype=torch.bool)
    ref2cam = np.stack([look_at((0, 0, 1), (4, 0, 0.5))])
    cam2img = np.array([[[60.0, 0, 48], [0, 60, 27], [0, 0, 1]]])
    path = tmp_path / 'CAM_FRONT.png'
    Image.fromarray(np.full((54, 96, 3), (10, 20, 30), np.uint8)).save(path)
    data.set_metainfo(
        dict(
            ref2cam=ref2cam,
            cam2img=cam2img,
            ref2img=project_matrix(ref2cam, cam2img),
            cam_names=['CAM_FRONT'],
            img_paths=[str(path)],
            token='abc',
        )
    )
    return data


def has(page, color):
    return int((page == np.asarray(color, np.uint8)).all(-1).sum())


def test_files(sample, tmp_path):
    visualizer = VISUALIZERS.build(dict(type='OccVisualizer', name='test_files', grid=GRID, panel_widths=SMALL))
    rendered = RenderedMaps(gt_classes=np.zeros((1, 54, 96), np.uint8), how='hand-made')
    visualizer.add_datasample('abc', None, sample, out_file=tmp_path / 'out' / 'abc.png', rendered=rendered)
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['abc_cameras.png', 'abc_rendered.png', 'abc_scene.png']
    assert np.asarray(Image.open(tmp_path / 'out' / 'abc_scene.png')).std() > 10


def test_backends_get_the_pages(sample, tmp_path):
    visualizer = OccVisualizer(
        grid=GRID, panel_widths=SMALL, vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path / 'vis')
    )
    visualizer.add_datasample('abc', None, sample, step=7)
    files = sorted(p.name for p in (tmp_path / 'vis').rglob('*.png'))
    assert files == ['abc_cameras_7.png', 'abc_scene_7.png']


def test_original_images_are_read_and_network_images_are_taken_as_they_come(sample):
    visualizer = OccVisualizer(grid=GRID, panel_widths=SMALL)
    from_file = visualizer.figures(sample)['cameras']
    assert has(from_file, (10, 20, 30)) > 96 * 50
    network = torch.zeros(1, 3, 54, 96)
    network[0] += torch.tensor([30.0, 20.0, 10.0])[:, None, None]  # BGR
    np.testing.assert_array_equal(visualizer.figures(sample, network)['cameras'], from_file)
    sample.set_metainfo(dict(img_paths=['/nowhere.jpg']))
    assert 'cameras' not in visualizer.figures(sample)


def test_original_images_of_another_size_are_not_drawn_over(sample):
    sample.set_metainfo(dict(ori_img_wh=np.array([[96.0, 54.0]])))
    assert original_images(sample) is not None
    Image.fromarray(np.zeros((50, 96, 3), np.uint8)).save(sample.img_paths[0])
    with pytest.raises(ValueError, match=r'CAM_FRONT\.png.* of sample abc has 96 x 50 pixels, .*for 96 x 54'):
        original_images(sample)


def test_what_is_drawn(sample):
    visualizer = OccVisualizer(grid=GRID, panel_widths=SMALL)
    both = visualizer.figures(sample)
    pred_only = visualizer.figures(sample, draw_gt=False)
    assert both['scene'].shape[1] > pred_only['scene'].shape[1]
    assert has(both['scene'], RED) > 100 and has(pred_only['scene'], RED) == 0
    assert has(pred_only['scene'], (0, 150, 245)) < has(both['scene'], (0, 150, 245))


def test_errors_outside_the_mask_are_not_drawn(sample):
    counts = {}
    for mask in (None, 'none', 'camera'):
        sample.mask_camera = torch.zeros(8, 8, 2, dtype=torch.bool)
        counts[mask] = has(OccVisualizer(grid=GRID, mask=mask, panel_widths=SMALL).figures(sample)['scene'], RED)
    # without a choice the mask of the sample counts; what is left is the legend
    assert counts[None] == counts['camera'] < counts['none'] / 2
    del sample.mask_camera
    assert has(OccVisualizer(grid=GRID, panel_widths=SMALL).figures(sample)['scene'], RED) == counts['none']
    with pytest.raises(ValueError, match="visualizer.mask='lidar' needs mask_lidar in the data sample"):
        OccVisualizer(grid=GRID, mask='lidar').figures(sample)


def test_grid_comes_from_the_dataset(sample):
    visualizer = OccVisualizer(panel_widths=SMALL)
    with pytest.raises(ValueError, match='OccVisualizer knows no grid'):
        visualizer.figures(sample)
    visualizer.dataset_meta = dict(grid=GRID)
    assert 'scene' in visualizer.figures(sample)
    visualizer.dataset_meta = dict(grid=dict(GRID, class_names=('car', 'road', 'void')))
    assert visualizer.painter.grid.class_names[2] == 'void'


def test_errors(sample):
    with pytest.raises(ValueError, match="visualizer.mask must be one of .* got 'front'"):
        OccVisualizer(mask='front')
    with pytest.raises(ValueError, match=r"panel_widths knows the pages .* got also \['film'\]"):
        OccVisualizer(panel_widths=dict(film=3))
    visualizer = OccVisualizer(grid=GRID, panel_widths=SMALL)
    with pytest.raises(ValueError, match=r'images must be \(1, 3, H, W\), one for each ref2img, got shape \(2, 3, 54, 96\)'):
        visualizer.figures(sample, torch.zeros(2, 3, 54, 96))
    with pytest.raises(ValueError, match='nothing to draw'):
        visualizer.figures(sample, draw_gt=False, draw_pred=False)
    with pytest.raises(ValueError, match='needs data_sample'):
        visualizer.add_datasample('abc')


def test_comparison_has_three_views_of_one_camera(sample):
    visualizer = OccVisualizer(grid=GRID, panel_widths=SMALL)
    path = CameraPath(width=120, turn=30)
    pictures = [visualizer.comparison(sample, path, position, f'frame {position}') for position in range(3)]
    assert len({picture.shape for picture in pictures}) == 1 and (pictures[0] != pictures[1]).any()
    # the car is in the second view (ground truth) and missed in the third
    third = pictures[0].shape[1] // 3
    views = [pictures[0][:130, k * third : (k + 1) * third] for k in range(3)]
    assert [has(view, (0, 150, 245)) > 10 for view in views] == [False, True, False]
    assert [has(view, RED) > 10 for view in views] == [False, False, True]
    del sample.gt_occ, sample.pred_occ
    with pytest.raises(ValueError, match='nothing to draw'):
        visualizer.comparison(sample, path)


def test_maps_by_rays_on_request(sample, tmp_path):
    visualizer = OccVisualizer(grid=GRID, panel_widths=SMALL)
    sample.set_metainfo(dict(ori_img_wh=np.array([[96.0, 54.0]])))
    visualizer.add_datasample('abc', None, sample, out_file=tmp_path / 'abc.png', maps='rays')
    assert (tmp_path / 'abc_rendered.png').is_file()
    with pytest.raises(ValueError, match=r"maps must be one of \('none', 'rays'\), got 'gaussians'"):
        visualizer.add_datasample('abc', None, sample, out_file=tmp_path / 'abc.png', maps='gaussians')


def test_cast_maps_at_another_size_show_the_same(sample):
    painter = OccVisualizer(grid=GRID).painter
    sample.set_metainfo(dict(ori_img_wh=np.array([[96.0, 54.0]])))
    full, half = cast_maps(sample, painter), cast_maps(sample, painter, 48, ['gt_occ'])
    assert full.gt_classes.shape == (1, 54, 96) and half.gt_classes.shape == (1, 27, 48) and half.pred_classes is None
    # a ray of the small map goes between two of the large one
    same = (half.gt_classes[0] == full.gt_classes[0, ::2, ::2]) | (half.gt_classes[0] == full.gt_classes[0, 1::2, 1::2])
    assert same.mean() > 0.98
    between = (half.gt_depth[0] - full.gt_depth[0, ::2, ::2]) * (half.gt_depth[0] - full.gt_depth[0, 1::2, 1::2])
    assert (between[27 // 2 + 4 :, 20:28] <= 1e-6).mean() > 0.9


def test_tensorboard_gets_the_pages(sample, tmp_path):
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator', reason='tensorboard is optional (requirements/optional.txt)'
    )
    visualizer = OccVisualizer(
        grid=GRID, panel_widths=SMALL, vis_backends=[dict(type='TensorboardVisBackend')], save_dir=str(tmp_path / 'vis')
    )
    visualizer.add_datasample('abc', None, sample, step=7)
    visualizer.close()
    events = accumulator.EventAccumulator(str(next((tmp_path / 'vis').rglob('events*')).parent), size_guidance=dict(images=0))
    events.Reload()
    assert sorted(events.Tags()['images']) == ['abc_cameras', 'abc_scene']
    event = events.Images('abc_scene')[0]
    page = visualizer.figures(sample, title='abc')['scene']
    assert event.step == 7 and (event.height, event.width) == page.shape[:2]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert('RGB')), page)


def test_every_process_knows_the_grid_and_writes_files_but_only_one_fills_the_backends(sample, tmp_path, monkeypatch):
    for module in ('mmengine.dist.utils', 'mmengine.dist'):
        monkeypatch.setattr(f'{module}.get_rank', lambda group=None: 1)
        monkeypatch.setattr(f'{module}.is_main_process', lambda group=None: False)
    monkeypatch.setattr('projects.occ.visualization.occ_visualizer.is_main_process', lambda: False)
    visualizer = OccVisualizer(panel_widths=SMALL, vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path / 'vis'))
    visualizer.dataset_meta = dict(grid=GRID)
    assert visualizer.painter.grid.shape == (8, 8, 2)
    visualizer.add_datasample('abc', None, sample, out_file=tmp_path / 'abc.png')
    assert (tmp_path / 'abc_scene.png').is_file()
    visualizer.add_datasample('abc', None, sample)
    assert not list((tmp_path / 'vis').rglob('*.png'))


@pytest.mark.parametrize('width', [None, 48])
def test_maps_and_pages_of_cameras_of_different_sizes(sample, tmp_path, width):
    path = tmp_path / 'CAM_NARROW.png'
    Image.fromarray(np.full((60, 40, 3), 90, np.uint8)).save(path)
    narrow = np.array([[40.0, 0, 20], [0, 40, 30], [0, 0, 1]])
    sample.set_metainfo(
        dict(
            ref2cam=np.stack([sample.ref2cam[0]] * 2),
            cam2img=np.stack([sample.cam2img[0], narrow]),
            ori_img_wh=np.array([[96.0, 54.0], [40.0, 60.0]]),
            cam_names=['CAM_FRONT', 'CAM_NARROW'],
            img_paths=[*sample.img_paths, str(path)],
        )
    )
    visualizer = OccVisualizer(name=f'sizes{width}', grid=GRID, panel_widths=SMALL)
    maps = cast_maps(sample, visualizer.painter, width)
    shapes = [(54, 96), (60, 40)] if width is None else [(27, 48), (72, 48)]
    assert [view.shape for view in maps.gt_classes] == [view.shape for view in maps.pred_depth] == shapes
    # the car is seen by both, ahead
    assert all((view == 0).any() for view in maps.gt_classes)
    pages = visualizer.figures(sample, rendered=maps)
    assert set(pages) == {'cameras', 'scene', 'rendered'} and has(pages['rendered'], (0, 150, 245)) > 20
