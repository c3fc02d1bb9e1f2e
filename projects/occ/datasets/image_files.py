"""Files that belong to images: own-car masks, class maps."""

from pathlib import PurePosixPath

from mmengine.fileio import join_path

from projects.occ.structures.frame_record import FrameRecord


def image_files(folder: str, pattern: str, record: FrameRecord) -> dict[str, str]:
    """Files that belong to the images of a frame.

    Args:
        folder: Folder of such files.
        pattern: Path below it, with ``{scene}``, ``{camera}``, ``{image}`` (the image's name without its ending) and ``{path}``
            (its whole path without the ending).
        record: The frame.

    Returns:
        Path by camera.

    Raises:
        ValueError: If the pattern has another placeholder.
    """
    files = {}
    for name, camera in record.cameras.items():
        path = PurePosixPath(camera.img_path)
        parts = dict(scene=record.scene_name, camera=name, image=path.stem, path=str(path.with_suffix('')))
        try:
            files[name] = join_path(folder, pattern.format(**parts))
        except (KeyError, IndexError) as error:
            raise ValueError(
                f'the pattern {pattern!r} has the unknown placeholder {error}; there are {sorted(parts)}'
            ) from None
    return files
