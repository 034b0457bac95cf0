"""The computed times, against sums by hand."""

import pytest

from benchmarks import roofline

PLAN = {
    "devices": 8,
    "flops": 30e12,
    "merge_flops": 10e12,
    "factor_bytes": 16e9,
    "collective_bytes": 4e9,
}


def test_seconds_are_those_by_hand():
    machine = roofline.Machine(4, 100e12, 50e12, 1e12, 1e11)
    found = roofline.seconds(PLAN, machine)  # half as many devices: twice the work each
    assert found["encoder"] == pytest.approx(40e12 / 100e12)
    assert found["merge"] == pytest.approx(20e12 / 50e12)
    assert found["sums"] == pytest.approx(2 * 3 / 4 * 4e9 / 1e11)
    assert found["step"] == pytest.approx(0.4 + 0.4 + 0.06)


def test_merge_takes_no_less_than_reading_the_factors_twice():
    machine = roofline.Machine(4, 100e12, 1e18, 1e9, 1e11)
    assert roofline.seconds(PLAN, machine)["merge"] == pytest.approx(8.0)


def test_one_device_sends_nothing():
    machine = roofline.Machine(1, 100e12, 50e12, 1e12, 1e11)
    assert roofline.seconds(PLAN, machine)["sums"] == 0


def test_table_has_a_row_a_machine():
    rows = roofline.table([PLAN]).splitlines()
    assert len(rows) == 2 + len(roofline.MACHINES)
