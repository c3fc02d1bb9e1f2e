"""Videos hold the pictures they are made of: number, size, duration and colours."""

import cv2
import numpy as np
import pytest
from PIL import Image

from projects.occ.visualization import video_files
from projects.occ.visualization.video_files import read_pngs, write_video


def pictures(count=5, height=41, width=60):
    """A square that moves over white beside a smooth ramp of many colours."""
    frames = []
    for k in range(count):
        frame = np.full((height, width, 3), 255, np.uint8)
        frame[5:15, 4 * k : 4 * k + 10] = (213, 40, 60)
        frame[20:40, :, 0] = np.linspace(0, 255, width).astype(np.uint8)
        frame[20:40, :, 1] = np.linspace(0, 200, 20).astype(np.uint8)[:, None]
        frames.append(frame)
    return frames


def test_gif(tmp_path):
    frames = pictures()
    assert write_video(tmp_path / 'folder' / 'a.gif', frames, 4) == tmp_path / 'folder' / 'a.gif'
    with Image.open(tmp_path / 'folder' / 'a.gif') as gif:
        assert (gif.n_frames, gif.size, gif.info['duration'], gif.info['loop']) == (5, (60, 41), 250, 0)
        for k, frame in enumerate(frames):
            gif.seek(k)
            shown = np.asarray(gif.convert('RGB')).astype(int)
            np.testing.assert_array_equal(shown[:20], frame[:20])  # few colours: exact
            assert np.abs(shown - frame).max() < 40 and np.abs(shown - frame).mean() < 6


def test_a_gif_with_few_colours_is_exact(tmp_path):
    frames = [
        np.random.default_rng(k).choice(np.array([[0, 0, 0], [0, 175, 0], [255, 255, 255]], np.uint8), (9, 12))
        for k in range(3)
    ]
    write_video(tmp_path / 'a.gif', frames, 30)
    with Image.open(tmp_path / 'a.gif') as gif:
        assert gif.info['duration'] == 30
        for k, frame in enumerate(frames):
            gif.seek(k)
            np.testing.assert_array_equal(np.asarray(gif.convert('RGB')), frame)


def test_mp4(tmp_path):
    frames = pictures(count=6, height=101, width=160)
    write_video(tmp_path / 'a.mp4', frames, 3)
    video = cv2.VideoCapture(str(tmp_path / 'a.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == 3
    shown = []
    while (read := video.read())[0]:
        shown.append(read[1][..., ::-1].astype(int))
    assert len(shown) == 6 and shown[0].shape == (102, 160, 3)  # an odd height gets a line more
    for picture, frame in zip(shown, frames):
        assert np.abs(picture[:101] - frame).mean() < 6
    # the middle of the square, in the first and in the last picture
    for k in (0, 5):
        np.testing.assert_allclose(shown[k][10, 4 * k + 5], (213, 40, 60), atol=25)


def test_pngs_come_back(tmp_path):
    frame = pictures(1)[0]
    Image.fromarray(frame).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_pngs([tmp_path / 'a.png'])[0], frame)


def test_errors(tmp_path, monkeypatch):
    frames = pictures(2)
    with pytest.raises(ValueError, match="must end in .gif or .mp4, got 'a.avi'"):
        write_video(tmp_path / 'a.avi', frames, 2)
    with pytest.raises(ValueError, match='positive number of pictures per second, got 0'):
        write_video(tmp_path / 'a.gif', frames, 0)
    with pytest.raises(ValueError, match='a.gif: there are no pictures'):
        write_video(tmp_path / 'a.gif', [], 2)
    with pytest.raises(ValueError, match=r'must have one size, got \[\(41, 60, 3\), \(41, 61, 3\)\]'):
        write_video(tmp_path / 'a.gif', [frames[0], pictures(1, width=61)[0]], 2)
    monkeypatch.setattr(video_files, 'CODEC', 'zzzz')
    with pytest.raises(RuntimeError, match='cannot write VP9; install opencv-python-headless or use gif'):
        write_video(tmp_path / 'a.mp4', frames, 2)
    assert not list(tmp_path.iterdir())
