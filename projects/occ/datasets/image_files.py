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
    return {
        name: image_file(folder, pattern, camera.img_path, name, record.scene_name) for name, camera in record.cameras.items()
    }


def image_file(folder: str, pattern: str, img_path: str, camera: str, scene: str) -> str:
    """File that belongs to one image, see :func:`image_files`."""
    path = PurePosixPath(img_path)
    parts = dict(scene=scene, camera=camera, image=path.stem, path=str(path.with_suffix('')))
    try:
        return join_path(folder, pattern.format(**parts))
    except (KeyError, IndexError) as error:
        raise ValueError(f'the pattern {pattern!r} has the unknown placeholder {error}; there are {sorted(parts)}') from None
