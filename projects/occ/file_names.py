"""Names out of files (tokens, scenes, cameras) as paths of files that are written."""

import hashlib
import unicodedata
from pathlib import PurePosixPath

# file systems take 255 bytes; suffixes, pages and the mark of a temporary file come on top
MAX_NAME_BYTES = 150


def name_to_path(name: object, what: str = 'token') -> PurePosixPath:
    """Path below an output folder of what is called by a token or a scene; slashes make folders.

    Args:
        name: The name.
        what: Named in the message.

    Returns:
        The relative path; different names have different paths.

    Raises:
        ValueError: If the name is no relative path that every file system takes: it is empty, leads out of the folder, holds
            control characters, or a part of it is too long.
    """
    text = name if isinstance(name, str) else str(name)
    parts = text.split('/')
    reason = ''
    if not text or any(part in ('', '.', '..') for part in parts):
        reason = 'must be a relative path without empty parts, "." and ".."'
    elif any(unicodedata.category(letter) in ('Cc', 'Cs') for letter in text):
        reason = 'must not hold control characters or halves of characters'
    elif max(len(part.encode()) for part in parts) > MAX_NAME_BYTES or len(parts) > 16:
        reason = f'must not be longer than {MAX_NAME_BYTES} bytes in each of at most 16 folders'
    if reason:
        shown = ascii(text) if len(text) <= 60 else f'{ascii(text[:60])}...'
        raise ValueError(f'output files are called after the {what}, which {reason}, got {shown}')
    return PurePosixPath(text)


def plain_name(name: object, empty: str = 'scene') -> str:
    """Any text as one file name without separators; texts that had to be changed get a mark that tells them apart.

    Args:
        name: The text.
        empty: The file name of no text at all.
    """
    text = str(name)
    plain = ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in text).strip('.')
    while len(plain.encode('utf-8', 'replace')) > MAX_NAME_BYTES:
        plain = plain[: len(plain) // 2]
    if plain == text:
        return plain or empty
    return f'{plain or empty}-{hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]}'


def shown_text(name: object) -> str:
    """A text for titles and pages: what cannot be written as UTF-8 becomes a question mark."""
    return str(name).encode('utf-8', 'replace').decode()
