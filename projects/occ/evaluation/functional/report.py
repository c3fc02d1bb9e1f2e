"""How metrics write numbers and name samples in their reports."""

from collections.abc import Mapping

import numpy as np


def percent(value: float) -> str:
    """A share as per cent with two digits, ``'-'`` for NaN."""
    return '-' if np.isnan(value) else f'{100 * value:.2f}'


def sample_name(sample: Mapping) -> str:
    """Token of a data sample for messages."""
    return str(sample.get('token', '<without token>'))
