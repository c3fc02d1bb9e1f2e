"""The metrics that a config lists, for tools that compute or extend them."""

from collections.abc import Mapping, Sequence
from typing import Any

from projects.occ.engine.errors import OccError


def as_list(evaluators: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The metrics of an evaluator block, which may be one or several."""
    return list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]


def find_evaluator(evaluators: Mapping[str, Any] | Sequence[Mapping[str, Any]], kind: str, remedy: str) -> Mapping[str, Any]:
    """The first metric of a type.

    Args:
        evaluators: An evaluator block of a config.
        kind: Its type, for example ``'OccupancyMetric'``.
        remedy: Who needs it, and what to do, for the message.

    Raises:
        OccError: If there is none.
    """
    found = next((evaluator for evaluator in as_list(evaluators) if evaluator.get('type') == kind), None)
    if found is None:
        raise OccError(f'the evaluator of this config has no {kind}; {remedy}')
    return found
