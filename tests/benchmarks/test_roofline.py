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


def test_table_has_rows_as_by_hand():
    larger = PLAN | {"devices": 16, "flops": 17e12, "merge_flops": 6e12}
    rows = roofline.table([PLAN, larger]).splitlines()
    assert len(rows) == 2 + len(roofline.MACHINES)
    # 20e12 / 197e12 s, 10e12 / (197e12 / 6) s, 2 * 7/8 * 4e9 / 100e9 s: 0.4761 s
    assert "| TPU v5e-8 | 102 ms | 305 ms | 70 ms | 476 ms | 1.3 h |" in rows
    # Its own plan: 11e12 / 275e12 s, 6e12 / (275e12 / 6) s, 2 * 15/16 * 4e9 / 150e9 s
    assert "| TPU v4-32 (16 chips) | 40 ms | 131 ms | 50 ms | 221 ms | 0.6 h |" in rows
    # The first plan, eight times on one device; factors are read in 32e9 / 3350e9 s
    assert "| 1 x H100 | 323 ms | 1194 ms | 0 ms | 1517 ms | 4.2 h |" in rows
