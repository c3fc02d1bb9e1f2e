"""The web page holds the voxels it was made of, needs nothing from outside, and shows them in a browser."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import get_benchmark
from projects.occ.visualization import SceneHtml, ViewerCamera, ViewerFrame, VoxelPainter, read_scene_html
from projects.occ.visualization.palettes import error_volume
from projects.occ.visualization.view_cameras import look_at

GRID = VoxelGrid((-4, -4, -1, 4, 4, 1), 1.0, (8, 8, 2), 'ego', 2, class_names=('car', 'driveable_surface', 'free'))
BROWSERS = ('chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome', 'chrome')


def street(shift=0):
    """A road with a car."""
    gt = np.full((8, 8, 2), 2, np.uint8)
    gt[:, :, 0], gt[5:7, 3 + shift : 5 + shift, 1] = 1, 0
    return gt


def camera():
    image = np.full((40, 80, 3), (30, 90, 120), np.uint8)
    return ViewerCamera(
        'CAM_FRONT', look_at((-3, 0, 1), (4, 0, 0.5)), np.array([[40.0, 0, 40], [0, 40, 20], [0, 0, 1]]), (80, 40), image
    )


def page(tmp_path, frames=2, title='a street', **options):
    painter = VoxelPainter(GRID)
    scene = SceneHtml(painter, title, **options)
    for k in range(frames):
        pred = street(1)
        pred[0, 0, :] = 2
        mask = np.ones((8, 8, 2), bool)
        mask[:2] = False
        scene.add(ViewerFrame(f'frame {k}', street(k), pred, mask, (camera(),)))
    return scene.write(tmp_path / 'scene.html')


def test_the_voxels_come_back(tmp_path):
    grid, frames = read_scene_html(page(tmp_path))
    assert grid == GRID and [frame.name for frame in frames] == ['frame 0', 'frame 1']
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.gt, street(k))
        assert (frame.pred == street(1)).sum() == 127 and frame.mask.sum() == 96 and not frame.mask[:2].any()


@pytest.mark.parametrize('preset', ['occ3d', 'surroundocc', 'sscbench-kitti360'])
def test_benchmark_sizes_and_missing_volumes(preset, tmp_path):
    painter = VoxelPainter(get_benchmark(preset).grid)
    grid, random = painter.grid, np.random.default_rng(0)
    labels = np.full(grid.shape, grid.free_index, np.uint8)
    where = random.random(grid.shape) < 0.02
    labels[where] = random.integers(0, grid.num_classes, where.sum())
    labels[:3] = grid.ignore_index
    scene = SceneHtml(painter, preset)
    scene.add(ViewerFrame('only a prediction', pred=labels))
    back, frames = read_scene_html(scene.write(tmp_path / 'a.html'))
    assert back == grid and frames[0].gt is None and frames[0].mask is None
    np.testing.assert_array_equal(frames[0].pred, labels)


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = page(tmp_path, title='</script><b>"&').read_text()
    assert (
        not re.search(r'(?:src|href)\s*=\s*["\']?(?!data:)(?:https?:)?//', text)
        and 'import(' not in text
        and 'fetch(' not in text
    )
    # the title can neither end the data nor become markup
    assert text.count('</script>') == 2 and '<b>"&' not in text.replace('<\\/script><b>\\"&', '')
    data = json.loads(re.search(r'id="scene">(.*?)</script>', text, re.DOTALL)[1])
    assert data['title'] == '</script><b>"&'
    assert data['frames'][0]['cameras'][0]['image'].startswith('data:image/jpeg;base64,')
    assert data['classes'][0] == dict(id=0, name='car', color=[0, 150, 245]) and data['classes'][-1]['hidden'] is True


def test_images_can_be_left_out(tmp_path):
    small, large = (page(tmp_path / name, image_width=width).stat().st_size for name, width in (('a', 0), ('b', 80)))
    assert small < large


def test_errors(tmp_path):
    scene = SceneHtml(VoxelPainter(GRID), 'empty')
    with pytest.raises(ValueError, match="the page 'empty' has no frame"):
        scene.text()
    with pytest.raises(ValueError, match='opacity'):
        scene.add(ViewerFrame('x', street(), street(), opacity=np.zeros((2, 2, 2))))
    with pytest.raises(ValueError, match="frame 'x' of the page has neither a label nor a prediction"):
        scene.add(ViewerFrame('x'))
    with pytest.raises(ValueError, match="label of frame 'x': expected a label volume of shape"):
        scene.add(ViewerFrame('x', np.zeros((2, 2, 2), np.uint8)))
    (tmp_path / 'other.html').write_text('<html></html>')
    with pytest.raises(ValueError, match='is not a page written by tools/visualize.py --html'):
        read_scene_html(tmp_path / 'other.html')


# ---- in a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def browse(tmp_path_factory):
    """Opens a page in a headless browser and returns the document and the picture; skips where there is no browser."""
    name = os.environ.get('OCC_BROWSER') or next(filter(shutil.which, BROWSERS), None)
    if name is None:
        pytest.skip(f'no browser found (none of {", ".join(BROWSERS)} on the path); set OCC_BROWSER to a Chromium')
    folder = tmp_path_factory.mktemp('browser')

    def run(url, *flags):
        command = [
            name,
            '--headless',
            '--no-sandbox',
            '--hide-scrollbars',
            '--window-size=1000,600',
            '--virtual-time-budget=10000',
        ]
        command += [f'--user-data-dir={folder / "profile"}', *flags]
        document = subprocess.run([*command, '--dump-dom', url], capture_output=True, text=True, timeout=120).stdout
        subprocess.run([*command, f'--screenshot={folder / "a.png"}', url], capture_output=True, timeout=120, check=True)
        with Image.open(folder / 'a.png') as image:
            return document, np.asarray(image.convert('RGB'))

    return run


SOFTWARE = ('--use-angle=swiftshader', '--enable-unsafe-swiftshader')


def close_to(picture, color, tolerance=12):
    return int((np.abs(picture[:, :690].astype(int) - color).max(-1) <= tolerance).sum())


def rows(document, box):
    """{name: number shown} of the class or error list."""
    text = re.search(rf'<div id="{box}" class="rows">(.*?)</div>', document, re.DOTALL)[1]
    return dict(re.findall(r'<span>(.*?)</span><b>(.*?)</b>', text))


def test_in_a_browser(browse, tmp_path):
    path = page(tmp_path)
    document, picture = browse(f'{path.as_uri()}#view=split&frame=1', *SOFTWARE)
    assert 'data-state="ready"' in document
    frame = read_scene_html(path)[1][1]
    errors = np.bincount(error_volume(frame.pred, frame.gt, 2, 255, frame.mask).ravel(), minlength=5)
    assert rows(document, 'errors') == dict(zip(('correct', 'wrong class', 'missed', 'not there'), map(str, errors[:4])))
    assert rows(document, 'classes') == {'car': '4 · 4', 'driveable surface': '63 · 64', 'ignored': '0 · 0'}
    # faces of the road: 64 up, 64 down, 32 at the sides; of the car on it 4 up and 8 at the sides, 4 of the road are hidden
    assert re.search(r'data-faces="\d+,(\d+),\d+"', document)[1] == str(64 + 64 + 32 + 4 + 8 - 4)
    assert close_to(picture, (255, 0, 255)) > 2000 and close_to(picture, (0, 150, 245)) > 100

    # a class is switched off, the other stays; the camera image lies behind the voxels
    document, picture = browse(f'{path.as_uri()}#view=gt&hide=0,1&camera=CAM_FRONT', *SOFTWARE)
    assert 'data-faces="0"' in document and close_to(picture, (30, 90, 120)) > 100000
    document, picture = browse(f'{path.as_uri()}#view=gt&hide=1', *SOFTWARE)
    assert 'data-faces="16"' in document and close_to(picture, (0, 150, 245)) > 300 and close_to(picture, (255, 0, 255)) == 0


def test_a_ray_in_a_browser(browse, tmp_path):
    painter = VoxelPainter(GRID)
    scene = SceneHtml(painter, 'a ray')
    gt = np.full((8, 8, 2), 2, np.uint8)
    gt[6] = 1
    pred = gt.copy()
    pred[4] = 0
    opacity = np.where(pred == 0, 0.5, np.where(pred == 1, 1.0, 0.0))
    front = ViewerCamera(
        'CAM_FRONT', look_at((-3.5, 0.5, 0.5), (4, 0.5, 0.5)), np.array([[40.0, 0, 40], [0, 40, 20], [0, 0, 1]]), (80, 40)
    )
    scene.add(ViewerFrame('hard', gt, pred, None, (front,)))
    scene.add(ViewerFrame('soft', gt, pred, None, (front,), opacity))
    path = scene.write(tmp_path / 'scene.html')
    told = 'label: driveable surface 5.5–6.5 m · prediction: car 3.5–4.5 m'
    document, picture = browse(f'{path.as_uri()}#view=pred&ray=CAM_FRONT,40,20', *SOFTWARE)
    assert re.search('data-ray="(.*?)"', document)[1] == told and 'ray of CAM_FRONT, pixel 40, 20' in document
    # the box at the lower left: bars of both classes on white
    box = picture[350:590, 10:480].astype(int)
    assert all((np.abs(box - color).max(-1) < 25).sum() > 100 for color in ((255, 0, 255), (0, 150, 245), (204, 51, 17)))
    document, picture = browse(f'{path.as_uri()}#view=pred&frame=1&ray=CAM_FRONT,40,20', *SOFTWARE)
    assert re.search('data-ray="(.*?)"', document)[1] == f'{told} · 100 % stopped'
    assert (np.abs(picture[350:590, 10:480].astype(int) - (34, 136, 51)).max(-1) < 25).sum() > 50
    # a ray that meets nothing, and none at all
    document, _ = browse(f'{path.as_uri()}#view=pred&ray=CAM_FRONT,40,-200', *SOFTWARE)
    assert 'data-ray="label: nothing · prediction: nothing"' in document
    assert 'data-ray' not in browse(f'{path.as_uri()}#view=pred', *SOFTWARE)[0].split('<body>')[0]


def test_without_webgl_the_page_says_so(browse, tmp_path):
    document, _ = browse(page(tmp_path).as_uri(), '--disable-gpu', '--disable-3d-apis', '--disable-software-rasterizer')
    assert 'data-state="failed"' in document and 'This page draws with WebGL 2' in document


@pytest.mark.parametrize(
    'name', ['<!--<script', '</script><script>alert(1)</script>', '__SCENE__', '__TITLE__', 'a\udcffb', ']]>', '\u2028']
)
def test_no_name_breaks_the_page(tmp_path, name):
    scene = SceneHtml(VoxelPainter(GRID), name)
    scene.add(ViewerFrame(name, gt=street()))
    path = scene.write(tmp_path / 'page.html')
    text = path.read_text(encoding='utf-8')
    data = text[text.index('id="scene">') + len('id="scene">') :]
    data = data[: data.index('</script>')]
    assert '<' not in data and text.count(data) == 1
    shown = name.replace('\udcff', '?')
    assert json.loads(data)['title'] == json.loads(data)['frames'][0]['name'] == shown
    assert read_scene_html(path)[1][0].name == shown
