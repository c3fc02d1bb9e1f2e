"""Pages keep the pixels of their panels; files are complete or absent."""

import numpy as np
import pytest
from PIL import Image

from projects.occ.visualization import figure_layout
from projects.occ.visualization.figure_layout import ColorBar, Panel, compose, resize, resize_nearest, write_png


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def find(page, image):
    """Row and column of an image inside a page."""
    rows, columns = page.shape[0] - image.shape[0] + 1, page.shape[1] - image.shape[1] + 1
    candidates = np.argwhere((page[:rows, :columns] == image[0, 0]).all(-1))
    return [(r, c) for r, c in candidates if (page[r : r + image.shape[0], c : c + image.shape[1]] == image).all()]


def test_panels_are_neither_resampled_nor_mixed_up():
    first, second, third = noise(40, 60), noise(40, 50, 1), noise(30, 80, 2)
    page = compose([[Panel(first, 'a'), Panel(second, 'b')], [Panel(third)]], [('car', (1, 2, 3))], title='page')
    (r1, c1), (r2, c2), (r3, c3) = (find(page, image)[0] for image in (first, second, third))
    assert r1 == r2 < r3 and c1 + 60 < c2
    # the short row is centred
    assert abs((c1 + c2 + 50) / 2 - (c3 + 40)) <= 1


def test_titles_legend_and_bars_take_space_and_ink():
    image = np.full((40, 300, 3), 255, np.uint8)
    plain = compose([[Panel(image)]])
    legend = compose([[Panel(image)]], [('car', (250, 0, 0)), ('road', (0, 250, 0))])
    assert legend.shape[0] > plain.shape[0] and legend.shape[1] == plain.shape[1]
    below = legend[plain.shape[0] - 10 :]
    assert (below == (250, 0, 0)).all(-1).sum() > 50 and (below == (0, 250, 0)).all(-1).sum() > 50
    titled = compose([[Panel(image, 'title')]])
    assert (titled[: titled.shape[0] - 60] < 100).any()
    barred = compose([[Panel(image)]], bars=[ColorBar('depth (m)', 'viridis', 0, 50, gamma=0.5)])
    assert barred.shape[0] > plain.shape[0] and len(np.unique(barred.reshape(-1, 3), axis=0)) > 100


def test_long_legends_wrap():
    image = np.full((40, 400, 3), 255, np.uint8)
    entries = [(f'class number {i}', (i, 0, 0)) for i in range(20)]
    page = compose([[Panel(image)]], entries)
    assert page.shape[1] <= 440
    for i in range(20):
        assert (page == (i, 0, 0)).all(-1).sum() > 20


def test_text_shrinks_to_the_page():
    image = np.full((40, 120, 3), 255, np.uint8)
    entries = [(f'a rather long class name {i}', (i, 0, 0)) for i in range(12)]
    page = compose([[Panel(image, 'a title that is wider than its panel')]], entries, title='a very long name of a frame ' * 2)
    assert page.shape[1] == 140
    dark = page[:80].min(-1) < 100
    assert dark.sum() > 100 and not dark[:, :4].any() and not dark[:, -4:].any()
    # twelve rows in letters of 9 points
    assert page.shape[0] < 40 + 3 * 40 + 12 * 22


def test_color_bar_paints_values():
    bar = ColorBar('m', 'gray', 0, 10)
    image = bar.paint(np.array([[0.0, 5.0, 10.0, 99.0, 5.0]]), np.array([[True, True, True, True, False]]))
    np.testing.assert_allclose(image[0, :, 0], [0, 128, 255, 255, 255], atol=1)
    spread = ColorBar('m', 'gray', 0, 10, gamma=0.5).paint(np.array([2.5]), np.array([True]))
    np.testing.assert_allclose(spread[0, 0], 128, atol=1)


def test_resizing():
    ids = np.repeat(np.repeat(np.array([[1, 7], [3, 5]], np.uint8), 10, 0), 10, 1)
    small = resize_nearest(ids, 4)
    np.testing.assert_array_equal(small, [[1, 1, 7, 7]] * 2 + [[3, 3, 5, 5]] * 2)
    np.testing.assert_array_equal(resize_nearest(ids, 40)[::2, ::2], ids)
    picture = np.full((90, 160, 3), 77, np.uint8)
    assert (resize(picture, 64) == 77).all() and resize(picture, 64).shape == (36, 64, 3)


def test_png_is_complete_or_absent(tmp_path, monkeypatch):
    image = noise(20, 30)
    path = write_png(tmp_path / 'deep' / 'a.png', image)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)

    def fail(source, target):
        raise OSError('disk full')

    monkeypatch.setattr(figure_layout.os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write_png(tmp_path / 'deep' / 'b.png', image)
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['a.png']


def test_errors():
    with pytest.raises(ValueError, match='at least one panel'):
        compose([[]])
