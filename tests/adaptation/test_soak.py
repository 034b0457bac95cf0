"""Ten thousand steps in one process: nothing may grow with them."""

import dataclasses

import jax
import numpy as np
import psutil
import pytest

from tests.adaptation import problems
from tests.adaptation.test_loop import CONFIG, run

STEPS, WARM = 10_000, 2_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_steps_leak_no_memory_no_descriptors_and_compile_nothing(tmp_path):
    process, samples, compiled = psutil.Process(), [], []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(len(samples))

    def batch(step):
        if step % 100 == 0:
            row = step, process.memory_info().rss / 1e6, process.num_fds()
            samples.append(row)
        return problems.batch(step)

    config = dataclasses.replace(
        CONFIG, num_steps=STEPS, checkpoint_every=500, learning_rate=1e-3
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(tmp_path, config, batch)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    step, rss, descriptors = np.asarray([row for row in samples if row[0] >= WARM]).T
    slope = np.polyfit(step / 1000, rss, 1)[0]
    print(f"{slope:.3f} MB in 1,000 steps, from {rss[0]:.0f} to {rss[-1]:.0f} MB")  # noqa: T201
    assert slope < 1.0
    assert descriptors.max() - descriptors.min() <= 8  # those of a state being saved
    during = [place for place in compiled if WARM // 100 < place < len(samples)]
    assert not during
    sizes = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert len(sizes) == STEPS
    first, last = (np.mean([len(x) for x in sizes[part]]) for part in _PARTS)
    assert abs(first - last) < 0.05 * first


_PARTS = slice(0, 1000), slice(-1000, None)
