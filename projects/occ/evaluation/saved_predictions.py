"""Folders of predictions, as ``tools/test.py --out`` and other code bases write them."""

import os
from collections.abc import Mapping
from pathlib import Path

SUFFIXES = ('.npz', '.npy', '.label')
# folders that tell nothing about a frame, and file names that the folder above names
_SILENT_FOLDERS = ('voxels', 'predictions', 'sequences')
_SILENT_STEM = 'labels'
_SCALE_SUFFIX = '_1_1'


def index_predictions(root: str | os.PathLike) -> dict[str, Path]:
    """Finds the prediction files below a folder.

    The name of a prediction is its path below the folder without suffix, where folders called ``voxels``, ``predictions`` or
    ``sequences``, a file called ``labels`` and SSCBench's ``_1_1`` say nothing: ``a/labels.npz`` is ``a``,
    ``drive/predictions/000005.label`` is ``drive/000005``.

    Args:
        root: The folder.

    Returns:
        Name -> file, sorted by name.

    Raises:
        FileNotFoundError: If the folder does not exist or has no such file.
        ValueError: If two files have one name.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'folder of predictions {str(root)!r} does not exist')
    found: dict[str, Path] = {}
    for path in sorted(path for path in root.rglob('*') if path.suffix in SUFFIXES and path.is_file()):
        relative = path.relative_to(root)
        stem = relative.name.removesuffix(relative.suffix).removesuffix(_SCALE_SUFFIX)
        parts = [part for part in relative.parts[:-1] if part not in _SILENT_FOLDERS]
        name = '/'.join(parts if stem == _SILENT_STEM and parts else [*parts, stem])
        if name in found:
            raise ValueError(f'two predictions are named {name!r}: {str(found[name])!r} and {str(path)!r}; remove one of them')
        found[name] = path
    if not found:
        raise FileNotFoundError(f'folder of predictions {str(root)!r} has no {", ".join(SUFFIXES)} file')
    return found


def match_predictions(
    names: Mapping[str, tuple[str, ...]], predictions: Mapping[str, Path]
) -> tuple[dict[str, Path], list[str]]:
    """Finds the prediction of every frame.

    Args:
        names: Token -> names that its prediction may have.
        predictions: Name -> file, of :func:`index_predictions`.

    Returns:
        Token -> file for the frames that have one, in the order of ``names``, and the names of predictions without a frame.

    Raises:
        ValueError: If a frame has two predictions.
    """
    matched: dict[str, Path] = {}
    used: set[str] = set()
    for token, candidates in names.items():
        hits = [name for name in dict.fromkeys(candidates) if name in predictions]
        if len(hits) > 1:
            raise ValueError(f'frame {token} has several predictions: {[str(predictions[name]) for name in hits]}; keep one')
        if hits:
            matched[token] = predictions[hits[0]]
            used.add(hits[0])
    return matched, [name for name in predictions if name not in used]
