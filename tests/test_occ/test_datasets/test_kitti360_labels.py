import numpy as np
import pytest

from projects.occ.datasets.kitti360_labels import (
    RAW_IDS,
    map_raw_labels,
    warn_if_upper_classes_miss,
)
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES

SHAPE = (4, 3, 2)
SEQUENCE = '2013_05_28_drive_0004_sync'


@pytest.fixture
def logged(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'projects.occ.datasets.kitti360_labels.print_log', lambda message, logger, level: messages.append((level, message))
    )
    return messages


@pytest.mark.parametrize(
    ('name', 'raw_ids'),
    [
        ('car', [10, 252]),
        ('other-vehicle', [13, 16, 20, 256, 257, 259]),
        ('truck', [18, 258]),
        ('person', [30, 254]),
        ('road', [40, 60]),
        ('building', [50]),
        ('other-structure', [52]),
        ('vegetation', [70]),
        ('terrain', [72]),
        ('other-object', [99]),
    ],
)
def test_raw_ids_become_the_class_of_their_name(name, raw_ids):
    labels = map_raw_labels(np.array(raw_ids, np.uint16), np.zeros(len(raw_ids), bool))
    assert labels.dtype == np.uint8
    assert {KITTI360_CLASSES[label - 1] for label in labels.tolist()} == {name}


def test_every_class_has_raw_ids_and_no_raw_id_has_two():
    assert set(RAW_IDS) == {*range(19), 255}
    ids = [raw_id for raw_ids in RAW_IDS.values() for raw_id in raw_ids]
    assert len(ids) == len(set(ids)) == 34


def test_invalid_hides_empty_space_only():
    raw = np.array([0, 0, 10, 10, 1, 255, 253], np.uint16)
    invalid = np.array([0, 1, 0, 1, 0, 1, 0], np.uint8)
    assert map_raw_labels(raw, invalid).tolist() == [0, 255, 1, 1, 255, 255, 255]


@pytest.mark.parametrize(('present', 'warned'), [([0, 255], False), ([10], True), ([10, 11], False), ([18], False)])
def test_warning_depends_on_the_classes(present, warned, logged):
    counts = np.zeros(256, np.int64)
    counts[present] = 3
    assert warn_if_upper_classes_miss(counts, 'labels') is warned and len(logged) == warned
