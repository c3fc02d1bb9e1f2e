"""Pictures of several scenes and several processes become one video per scene."""

import numpy as np
import pytest
from PIL import Image

from projects.occ.visualization import SceneVideos


def picture(value):
    return np.full((8, 12, 3), value, np.uint8)


def values(path):
    with Image.open(path) as gif:
        shown = []
        for k in range(gif.n_frames):
            gif.seek(k)
            shown.append(int(np.asarray(gif.convert('RGB'))[0, 0, 0]))
    return shown


def test_one_video_per_scene_sorted_by_position(tmp_path):
    videos = SceneVideos(tmp_path, 'gif', 5)
    for scene, position, value in (('b', 3, 30), ('a', 0, 100), ('b', 1, 10), ('b', 2, 20), ('a', 5, 200)):
        videos.add(scene, position, picture(value))
    assert videos.finish() == [tmp_path / 'a.gif', tmp_path / 'b.gif']
    assert values(tmp_path / 'b.gif') == [10, 20, 30] and values(tmp_path / 'a.gif') == [100, 200]
    assert (tmp_path / 'frames' / 'b' / '000002.png').is_file()
    assert videos.finish() == []


def test_processes_share_a_scene(tmp_path):
    processes = [SceneVideos(tmp_path, 'gif', 2) for _ in range(2)]
    for position in range(5):
        processes[position % 2].add('scene', position, picture(40 * position))
    everything = processes[0].records + processes[1].records
    assert processes[1].finish(lambda records: []) == []
    assert processes[0].finish(lambda records: everything) == [tmp_path / 'scene.gif']
    assert values(tmp_path / 'scene.gif') == [0, 40, 80, 120, 160]


def test_names_and_kinds(tmp_path):
    with pytest.raises(ValueError, match=r"a video is one of \('gif', 'mp4'\), got 'avi'"):
        SceneVideos(tmp_path, 'avi', 2)
