"""Collects the pictures of scenes and makes one video of each."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from projects.occ.file_names import plain_name

from .figure_layout import write_png
from .video_files import VIDEO_KINDS, read_pngs, write_video

Record = tuple[str, int, str]  # scene, position in it, file


class SceneVideos:
    """One video per scene, ``<folder>/<scene>.gif`` or ``.mp4``.

    Its pictures are kept as ``<folder>/frames/<scene>/<position>.png``. They go to files at once, so that long scenes
    need no memory and several processes can share a scene.

    Args:
        folder: Where the videos go.
        kind: ``'gif'`` or ``'mp4'``.
        fps: Pictures per second.

    Raises:
        ValueError: If ``kind`` is unknown.
    """

    def __init__(self, folder: str | os.PathLike, kind: str, fps: float) -> None:
        if kind not in VIDEO_KINDS:
            raise ValueError(f'a video is one of {VIDEO_KINDS}, got {kind!r}')
        self.folder = Path(folder)
        self.kind = kind
        self.fps = fps
        self.records: list[Record] = []

    def add(self, scene: str, position: int, picture: np.ndarray) -> None:
        """Keeps one picture (H, W, 3) uint8 of a scene; pictures are sorted by ``position``."""
        scene = plain_name(scene)
        path = self.folder / 'frames' / scene / f'{position:06d}.png'
        write_png(path, picture)
        self.records.append((scene, position, str(path)))

    def finish(self, gather: Callable[[list[Record]], list[Record]] = list) -> list[Path]:
        """Writes the videos.

        Args:
            gather: Joins the records of several processes; returns an empty list where nothing is to be written.

        Returns:
            The files, sorted by scene.
        """
        scenes = defaultdict(dict)
        for scene, position, path in gather(self.records):
            scenes[scene][position] = path
        self.records = []
        videos = []
        for scene, pictures in sorted(scenes.items()):
            frames = read_pngs(path for _, path in sorted(pictures.items()))
            videos.append(write_video(self.folder / f'{scene}.{self.kind}', frames, self.fps))
        return videos
