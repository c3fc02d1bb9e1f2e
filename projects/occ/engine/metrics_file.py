"""Metrics as a file."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from projects.occ.atomic_write import write_atomically


def write_metrics(path: str | os.PathLike, metrics: Mapping[str, Any], source: Mapping[str, str]) -> None:
    """Writes metrics as JSON, as fractions, atomically.

    Prefixes (``occ/mIoU``) are left out where the rest of the name is unique. Values that are NaN or infinite become null.

    Args:
        path: File to write.
        metrics: What ``Runner.test`` returns.
        source: Where the numbers come from; written under the key ``source``.
    """
    short = {name: name.split('/', 1)[-1] for name in metrics}
    count = Counter(short.values())
    named = {short[name] if count[short[name]] == 1 else name: value for name, value in metrics.items()}
    text = json.dumps(_to_json({**named, 'source': source}), indent=2, allow_nan=False)
    write_atomically(path, lambda file: file.write(f'{text}\n'.encode()))


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_to_json(item) for item in value]
    if hasattr(value, 'item'):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
