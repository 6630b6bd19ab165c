import pytest

from cotpipe.report.statistics import change_of_mean, change_of_share, mean, share


def test_share_has_wilsons_interval():
    estimate = share([True] * 81 + [False] * 182)  # 81 of 263, a textbook example (Newcombe 1998)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (0.30798, 0.25527, 0.36620), abs=1e-4
    )


def test_mean_has_students_interval():
    estimate = mean([1, 2, 3, 4, 5])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (3, 1.03676, 4.96324), abs=1e-4
    )
    assert (mean([4]).low, mean([4]).high) == (4, 4)


def test_paired_changes():
    before, after = [True] * 10 + [False] * 20, [True] * 8 + [False] * 2 + [True] * 12 + [False] * 8
    change = change_of_share(before, after)  # 12 gained, 2 lost
    assert change.value == pytest.approx(10 / 30)
    assert change.p_value == pytest.approx(0.012939, abs=1e-5)
    assert change.beyond_noise
    assert not change_of_share(before, before).beyond_noise
    assert change_of_mean([90, 80, 70, 60, 50, 60, 70], [40, 42, 41, 45, 44, 46, 47]).beyond_noise
    assert not change_of_mean([90, 80], [90, 80]).beyond_noise
