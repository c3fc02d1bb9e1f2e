"""Which frame comes before or after which."""

from collections.abc import Sequence

from projects.occ.structures.frame_record import FrameRecord


class FrameNeighbours:
    """Finds the neighbours of key frames among the frames of a source; a scene ends where the scene ends.

    Frames that name their neighbours (``prev``, ``next``) are linked by these names. Else frames belong together by their
    scene, and their order is that of ``frame_idx`` if all have one, else that of time. A neighbour that the source does not
    have (no label, another split) is none; only by time the next frame that is there counts as the neighbour.

    Args:
        records: All frames of the source.
        step: Difference of ``frame_idx`` between neighbours.
        origin: Named in messages.

    Raises:
        ValueError: If the frames name neither neighbours nor scenes.
    """

    def __init__(self, records: Sequence[FrameRecord], step: int = 1, origin: str = 'the annotation file') -> None:
        self._records = records
        self._step = step
        self._by_token = None
        if any(record.prev or record.next for record in records):
            self._by_token = {record.token: index for index, record in enumerate(records)}
            return
        if not all(_scene(record) for record in records):
            raise ValueError(
                f'{origin}: its frames name neither their neighbours (prev, next) nor their scenes, so other frames than 0 '
                'cannot be found; make the file with tools/create_data.py, add scene names with convert-infos --gts, or set '
                'dataset.frames=(0,)'
            )
        scenes: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            scenes.setdefault(_scene(record), []).append(index)
        numbers: dict[int, int] = {index: record.frame_idx for index, record in enumerate(records)}
        if any(record.frame_idx < 0 for record in records):
            for members in scenes.values():
                members.sort(key=lambda index: _time(records[index], origin))
                numbers.update({index: position * step for position, index in enumerate(members)})
        self._numbers = numbers
        self._by_number = {(_scene(records[index]), number): index for index, number in numbers.items()}

    def find(self, index: int, offset: int) -> int | None:
        """Index of the frame ``offset`` key frames after (before, if negative) frame ``index``; None if there is none."""
        if self._by_token is None:
            return self._by_number.get((_scene(self._records[index]), self._numbers[index] + offset * self._step))
        found: int | None = index
        for _ in range(abs(offset)):
            record = self._records[found]
            found = self._by_token.get(record.next if offset > 0 else record.prev)
            if found is None:
                return None
        return found


def _scene(record: FrameRecord) -> str:
    return record.scene_token or record.scene_name


def _time(record: FrameRecord, origin: str) -> float:
    if record.timestamp is None:
        raise ValueError(f'{origin}: frame {record.token} has neither frame_idx nor timestamp, so its neighbours are unknown')
    return record.timestamp
