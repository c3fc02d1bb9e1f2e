"""What the modules ``projects/<family>/checkpoint.py`` share: renaming all entries of a file, and image networks alone."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping

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


class ToProject:
    """``to_project`` of a family: our names of the weights in a file.

    Args:
        identify: Says which code base wrote some keys, None if they are of another family.
        rename: Rule of the family, called with a name and the source.
        refusal: What to say if a file is of another family.
    """

    def __init__(self, identify: Callable[[Collection[str]], str | None], rename: Rename, refusal: str) -> None:
        self.identify = identify
        self.rename = rename
        self.refusal = refusal

    def __call__(self, keys: Collection[str]) -> tuple[str, dict[str, str | None], list[str]]:
        """Renames the keys of a file.

        Args:
            keys: Names in the file.

        Returns:
            The source; the new name of every known key, or None where there is no counterpart; the unknown keys.

        Raises:
            ValueError: If the file is of another family.
        """
        source = self.identify(keys)
        if source is None:
            raise ValueError(self.refusal)
        return source, *_rename_all(keys, lambda key: self.rename(key, source))

    def state_dict(self, state_dict: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Renames a (part of a) state dict of ``source``; entries without counterpart are left out.

        Raises:
            KeyError: If a name is unknown.
        """
        renamed = {key: self.rename(key, source) for key in state_dict}
        return {ours: state_dict[key] for key, ours in renamed.items() if ours is not None}


def rename_back(
    state_dict: Mapping[str, Tensor], rename: Callable[[str], str | None]
) -> tuple[dict[str, Tensor], dict[str, str | None], list[str]]:
    """Original names of our weights, what ``to_official`` of every family returns.

    Args:
        state_dict: Our weights.
        rename: Original name of an entry, None if it has none; raises KeyError for unknown entries. It is not asked for the
            progress of a training (``_extra_state``), which is no weight.

    Returns:
        The weights under their original names; the original name of every known key, None where there is no counterpart; the
        unknown keys.
    """
    renamed, unknown = _rename_all(state_dict, lambda key: None if key.endswith('_extra_state') else rename(key))
    return {new: state_dict[key] for key, new in renamed.items() if new is not None}, renamed, unknown


def replace_prefix(key: str, places: Iterable[tuple[str, str | None]]) -> str | None:
    """``key`` with the first prefix that fits replaced; None where that prefix has no counterpart.

    Raises:
        KeyError: If no prefix fits.
    """
    for old, new in places:
        if key.startswith(old):
            return None if new is None else new + key.removeprefix(old)
    raise KeyError(key)


def never_adapt(key: str, given: Tensor, own: Tensor) -> None:
    """``adapt`` of families in which an entry of another shape never fits."""
    return None


def _rename_all(keys: Iterable[str], rename: Callable[[str], str | None]) -> tuple[dict[str, str | None], list[str]]:
    known: dict[str, str | None] = {}
    unknown = []
    for key in keys:
        try:
            known[key] = rename(key)
        except KeyError:
            unknown.append(key)
    return known, unknown
