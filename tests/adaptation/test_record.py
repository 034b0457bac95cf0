"""What a run notes when it is taken up again, and what stops it."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from adarank_jax import errors
from adarank_jax.adaptation import memory
from adarank_jax.checkpoints import digests
from tests.adaptation import problems
from tests.adaptation.test_loop import CONFIG, run, steps, stopping_at


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def cut(folder, last, **options):
    with pytest.raises(KeyboardInterrupt):
        run(folder, batch=stopping_at(last), **options)


def test_resume_after_damage_is_the_same_run_and_says_so(tmp_path):
    whole = run(tmp_path / "whole")
    cut(tmp_path / "cut", 10)
    newest = tmp_path / "cut" / "checkpoints" / "run" / "8" / "digests.json"
    newest.write_text(newest.read_text().replace('"step": 8', '"step": 9'))
    resumed = run(tmp_path / "cut")
    chex.assert_trees_all_equal(resumed, whole)
    assert steps(tmp_path / "cut") == list(range(CONFIG.num_steps))
    (note,) = manifest(tmp_path / "cut")["notes"]
    assert note.startswith("W603 run: E602") and "Going on from step 4" in note
    assert "resumed_inexact" not in manifest(tmp_path / "cut")


def test_resume_on_other_devices_is_marked_with_the_reason(tmp_path):
    cut(tmp_path, 9)
    run(tmp_path, devices=jax.devices()[:8])
    assert manifest(tmp_path)["resumed_inexact"] is True
    (note,) = manifest(tmp_path)["notes"]
    assert note.startswith("W604") and "devices: 1 then, 8 now" in note


def test_resume_with_other_factors_is_marked(tmp_path):
    cut(tmp_path, 9)
    problem = problems.problem()
    leaf = problem.factors["first"]["kernel"]
    problem.factors["first"]["kernel"] = leaf._replace(u=-leaf.u, vt=-leaf.vt)
    run(tmp_path, problem=problem)
    assert "factors were made again" in manifest(tmp_path)["notes"][0]


def test_resume_of_the_same_run_notes_nothing(tmp_path):
    cut(tmp_path, 9)
    run(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_changed_rows_are_told_and_change_nothing(tmp_path):
    whole = run(tmp_path / "whole")
    cut(tmp_path / "cut", 9)
    file = tmp_path / "cut" / "metrics.jsonl"
    file.write_text(file.read_text().replace('"loss": ', '"loss": 1', 1))
    chex.assert_trees_all_equal(run(tmp_path / "cut"), whole)
    assert manifest(tmp_path / "cut")["notes"][0].startswith("W605")


def test_states_of_another_run_are_refused(tmp_path):
    cut(tmp_path / "cut", 9)
    (tmp_path / "other").mkdir()
    (tmp_path / "cut" / "checkpoints").rename(tmp_path / "other" / "checkpoints")
    (tmp_path / "other" / "config.yaml").write_bytes(
        (tmp_path / "cut" / "config.yaml").read_bytes()
    )
    states = tmp_path / "other" / "checkpoints" / "run"
    for file in states.glob("*/digests.json"):
        held = json.loads(file.read_text())
        del held["file_sha256"]
        held["about"]["config"] = "another"
        file.write_text(digests.sealed(held))
    rows = tmp_path / "other" / "metrics.jsonl"
    rows.write_text("mine")
    with pytest.raises(errors.DamageError, match="E606"):
        run(tmp_path / "other")
    assert rows.read_text() == "mine"


def test_loss_that_is_not_finite_names_step_and_task_and_keeps_the_state(tmp_path):
    def batch(step):
        found = problems.batch(step)
        if step < 6:
            return found
        inputs = np.array(found.inputs)
        inputs[1] = np.nan
        return found._replace(inputs=inputs)

    with pytest.raises(errors.NumericsError, match=r"E501.*\['b'\].*step 6") as caught:
        run(tmp_path, batch=batch)
    assert caught.value.exit_code == 5
    chex.assert_trees_all_equal(run(tmp_path), run(tmp_path / "whole"))


def collapsing(step):
    """Returns batches of many examples at first, then of one again and again."""
    found = problems.batch(min(step, 50))
    first = np.asarray(found.inputs)[:, :1]
    same = np.broadcast_to(first, found.inputs.shape).copy()
    return found if step < 50 else found._replace(inputs=same)


def certain():
    """Returns a problem whose predictions are certain, so that the mean tells all."""
    problem = problems.problem()
    heads = [head._replace(logit_scale=np.float32(80)) for head in problem.heads]
    return dataclasses.replace(problem, heads=heads)


COLLAPSE = dataclasses.replace(
    CONFIG, num_steps=110, checkpoint_every=40, learning_rate=1e-3
)


def test_collapse_is_told_once_a_task_within_two_windows(tmp_path):
    run(tmp_path, COLLAPSE, collapsing, problem=certain())
    notes = manifest(tmp_path)["notes"]
    assert notes and all(note.startswith("W502 run: at step 99 ") for note in notes)
    assert len(notes) == len({note.split("'")[1] for note in notes})


def test_collapse_stops_when_told_to_and_keeps_the_state_before(tmp_path):
    config = dataclasses.replace(COLLAPSE, on_collapse="stop")
    with pytest.raises(errors.NumericsError, match="E502.*step 99") as caught:
        run(tmp_path, config, collapsing, problem=certain())
    assert caught.value.exit_code == 5
    states = tmp_path / "checkpoints" / "run"
    assert sorted(int(place.name) for place in states.iterdir()) == [40, 80]
    with pytest.raises(errors.NumericsError, match="E502.*step 99"):
        run(tmp_path, config, collapsing, problem=certain())


def test_run_without_collapse_is_told_nothing(tmp_path):
    run(tmp_path, COLLAPSE, problem=certain())
    assert not (tmp_path / "manifest.json").exists()


def test_step_that_does_not_fit_is_refused_before_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_on_host", lambda: 1000)
    with pytest.raises(errors.MachineError, match="E410"):
        run(tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    monkeypatch.undo()
    run(tmp_path)
    assert steps(tmp_path) == list(range(CONFIG.num_steps))
