import math

from projects.occ.evaluation.functional.report import percent, sample_name


def test_shares_and_names():
    assert [percent(value) for value in (0.12345, 1, 0, math.nan)] == ['12.35', '100.00', '0.00', '-']
    assert sample_name({'token': 't0'}) == 't0' and 'without' in sample_name({})
