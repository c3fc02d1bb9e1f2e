"""What the modules ``projects/<family>/checkpoint.py`` share: renaming all entries of a file, and image networks alone."""

import re
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

# Returns our name of an entry, or None if it has no counterpart; raises KeyError for unknown names.
Rename = Callable[[str, str], str | None]


def plain_key(key: str) -> str:
    """A key without the prefix of data-parallel wrappers."""
    return key.removeprefix('module.')


def is_image_network(keys: Collection[str], image: re.Pattern, detection: re.Pattern) -> bool:
    """Whether a file holds an image network and nothing else.

    Args:
        keys: Plain names in the file.
        image: Matches the entries of backbone and neck.
        detection: Matches the entries of detection branches, which may be there too.
    """
    inside = [key for key in keys if image.match(key)]
    return any('backbone.' in key for key in inside) and all(image.match(key) or detection.match(key) for key in keys)


def rename_keys(
    keys: Collection[str], source: str | None, rename: Rename, refusal: str
) -> tuple[str, dict[str, str | None], list[str]]:
    """Our names of the weights in a file.

    Args:
        keys: Names in the file.
        source: Code base that wrote them, None if they are of another family.
        rename: Rule of the family, called with a name and the source.
        refusal: What to say if the file is of another family.

    Returns:
        The source; the new name of every known key, or None where there is no counterpart; the unknown keys.

    Raises:
        ValueError: If the file is of another family.
    """
    if source is None:
        raise ValueError(refusal)
    known: dict[str, str | None] = {}
    unknown = []
    for key in keys:
        try:
            known[key] = rename(key, source)
        except KeyError:
            unknown.append(key)
    return source, known, unknown


def rename_state_dict(state_dict: Mapping[str, Tensor], source: str, rename: Rename) -> dict[str, Tensor]:
    """Renames a (part of a) state dict; entries without counterpart are left out.

    Raises:
        KeyError: If a name is unknown.
    """
    renamed = {key: rename(key, source) for key in state_dict}
    return {ours: state_dict[key] for key, ours in renamed.items() if ours is not None}
