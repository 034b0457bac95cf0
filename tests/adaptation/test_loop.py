import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import textwrap
import time

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from adarank_jax.adaptation import prefetch
from adarank_jax.adaptation.loop import AdaptationConfig, adapt
from adarank_jax.adaptation.objectives import entropy
from adarank_jax.adaptation.progress import AdaptationProgress
from adarank_jax.adaptation.run_folder import RunFolder
from tests.adaptation import problems

CONFIG = AdaptationConfig(
    num_steps=12, batch_size=16, learning_rate=0.05, checkpoint_every=4
)


def run(folder, config=CONFIG, batch=problems.batch, devices=None, problem=None):
    problem = problem or problems.problem()
    return adapt(
        problem,
        problems.variables(problem),
        entropy,
        problems.from_step(batch),
        config,
        RunFolder(folder, {}, restart=False),
        "run",
        devices or jax.devices()[:1],
        Console(file=io.StringIO()),
    )


def stopping_at(last):
    def batch(step):
        if step == last:
            raise KeyboardInterrupt
        return problems.batch(step)

    return batch


def steps(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.parametrize("last", [2, 6, 8])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, last):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", batch=stopping_at(last))
    resumed = run(tmp_path / "cut")
    chex.assert_trees_all_equal(resumed, whole)
    assert steps(tmp_path / "cut") == list(range(CONFIG.num_steps))


def test_run_resumes_on_another_number_of_devices(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", batch=stopping_at(9))
    resumed = run(tmp_path / "cut", devices=jax.devices()[:8])
    chex.assert_trees_all_close(resumed, whole, atol=1e-5)


def test_finished_run_is_not_run_again(tmp_path):
    whole = run(tmp_path)
    again = run(tmp_path, batch=stopping_at(0))
    chex.assert_trees_all_equal(again, whole)


def test_metrics_have_one_row_a_step_with_entropies_by_task(tmp_path):
    run(tmp_path)
    assert steps(tmp_path) == list(range(CONFIG.num_steps))
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert set(row["entropy"]) == set(problems.TASKS)
    assert row["mean_entropy"] == pytest.approx(np.mean(list(row["entropy"].values())))
    for task, classes in zip(problems.TASKS, problems.CLASSES, strict=True):
        assert 0.0 <= row["entropy"][task] <= np.log(classes)


def test_metrics_have_the_time_of_each_step_and_its_share_of_waiting(tmp_path):
    def batch(step):
        time.sleep(0.2)
        return problems.batch(step)

    started = time.perf_counter()
    run(tmp_path, batch=batch)
    total = time.perf_counter() - started
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert 0.2 * (CONFIG.num_steps - 1) < sum(row["seconds"] for row in rows) < total
    assert rows[0]["waited"] > 0.19  # nothing runs while the first batch is read
    assert 0.0 < prefetch.idle_share(rows) < 1.0


@pytest.mark.parametrize("wrapper", ["pmap", "shard_map"])
def test_nothing_is_compiled_after_the_first_checkpoint(tmp_path, wrapper):
    compiled = []

    def count(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    seen = {}

    def batch(step):
        seen[step] = len(compiled)
        return problems.batch(step)

    jax.monitoring.register_event_duration_secs_listener(count)
    config = dataclasses.replace(CONFIG, num_steps=20, parallel=wrapper)
    run(tmp_path, config, batch, devices=jax.devices())
    jax.monitoring.unregister_event_duration_listener(count)
    # Two batches ahead of the step, so the eighth is taken after the first save.
    assert seen[0] < seen[8] == seen[19]


@pytest.mark.parametrize("count", [1, 8])
def test_wrappers_give_the_same_run(tmp_path, count):
    found = [
        run(
            tmp_path / wrapper,
            dataclasses.replace(CONFIG, parallel=wrapper),
            devices=jax.devices()[:count],
        )
        for wrapper in ("pmap", "shard_map")
    ]
    chex.assert_trees_all_close(*found, atol=1e-6)


def test_loop_stops_when_a_loss_is_not_finite(tmp_path):
    def batch(step):
        inputs = problems.batch(step)
        if step == 5:
            bad = np.array(inputs.inputs)
            bad[1] = np.nan
            return inputs._replace(inputs=bad)
        return inputs

    with pytest.raises(FloatingPointError, match=r"\['b'\].*step 5"):
        run(tmp_path, batch=batch)
    assert steps(tmp_path) == [0, 1, 2, 3, 4]


def test_progress_tells_step_speed_time_left_and_entropy(tmp_path):
    stream = io.StringIO()
    problem = problems.problem()
    adapt(
        problem,
        problems.variables(problem),
        entropy,
        problems.from_step(),
        CONFIG,
        RunFolder(tmp_path, {}, restart=False),
        "run",
        jax.devices()[:1],
        Console(file=stream),
    )
    line = stream.getvalue().splitlines()[-1]
    assert "step 12 of 12" in line
    for word in ("it/s", "ETA", "entropy"):
        assert word in line


@pytest.mark.parametrize("name", ["run", "adarank-task_arithmetic-expert_labels"])
def test_progress_has_room_for_the_time_left_on_a_narrow_terminal(name):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=25)
    with AdaptationProgress(name, 0, 5_000, console) as progress:
        progress._bar.refresh()
        begin = stream.getvalue()
        progress.update(1, 1.25)
        progress.update(2, 1.25)
        progress._bar.refresh()
    assert "compiling" in begin
    assert "nan" not in stream.getvalue() and "-:--" not in stream.getvalue()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = re.split(r"[\r\n]+", text)
    assert max(map(len, lines)) <= 80
    assert name[:8] in lines[-2]
    assert re.search(r"2/5000 .*it/s, ETA \d+:\d\d:\d\d, entropy 1.250", lines[-2])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_steps", -1),
        ("batch_size", 0),
        ("checkpoint_every", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("temperature", -1.0),
    ],
)
def test_config_refuses_values_out_of_range(field, value):
    with pytest.raises(ValueError, match=field):
        AdaptationConfig(**{field: value})


def test_config_names_all_problems_at_once():
    with pytest.raises(ValueError, match=r"num_steps[\s\S]*batch_size"):
        AdaptationConfig(num_steps=-1, batch_size=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ()}, "at least one task"),
        ({"tasks": ("a", "b", "a")}, r"\['a'\] twice"),
        ({"tasks": ("a", "b")}, "got 3 for 2 tasks"),
        ({"heads": []}, "got 0 for 3 tasks"),
    ],
)
def test_problem_refuses_tasks_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(problems.problem(), **change)


def test_problem_refuses_factors_of_other_tasks():
    problem = problems.problem()
    with pytest.raises(ValueError, match="got 3 at 'first/bias'"):
        dataclasses.replace(problem, tasks=("a", "b"), heads=problem.heads[:2])


def test_loop_refuses_a_batch_that_does_not_divide_before_any_work(tmp_path):
    config = dataclasses.replace(CONFIG, batch_size=12)
    with pytest.raises(ValueError, match="multiple of 8"):
        run(tmp_path, config, devices=jax.devices()[:8])
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_numbers(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        sys.path.insert(0, ".")
        import pathlib
        from tests.adaptation import problems, test_loop
        def batch(step):
            time.sleep(0.05)
            return problems.batch(step)
        test_loop.run(pathlib.Path(sys.argv[1]), batch=batch)
        """
    )
    whole = run(tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cut")])
    while not (tmp_path / "cut" / "checkpoints" / "run" / "4").is_dir():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    chex.assert_trees_all_close(run(tmp_path / "cut"), whole, atol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_a_tensor_that_is_not_merged_stays_that_of_the_origin(tmp_path, count):
    found = problems.problem()
    factors = found.factors | {"first": dict.fromkeys(("kernel", "bias"))}
    found = dataclasses.replace(found, factors=factors)
    start = problems.variables(found)
    folder, devices = tmp_path / "run", jax.devices()[:count]
    end, merged = run(folder, devices=devices, problem=found)
    assert end.coefficients["first"] == {"kernel": None, "bias": None}
    chex.assert_trees_all_equal(merged["first"], found.origin["first"])
    before, after = start.coefficients["second"], end.coefficients["second"]
    assert np.all(np.abs(after["kernel"] - before["kernel"]) > 1e-4)
    again, _ = run(folder, devices=devices, problem=found)
    chex.assert_trees_all_equal(again, end)
