import json
import pathlib
import shutil

import chex
import jax
import numpy as np
import optax
import pytest

from adarank_jax import errors
from adarank_jax.adaptation import saved_states
from adarank_jax.adaptation.step import State
from adarank_jax.core.merge import Variables

ABOUT = {"metrics": {"size": 3}}


def state(seed):
    rng = np.random.default_rng(seed)
    variables = Variables(
        {"kernel": rng.normal(size=3).astype(np.float32)},
        {"kernel": rng.normal(size=(3, 40)).astype(np.float32), "bias": None},
    )
    return State(variables, optax.adam(0.1).init(variables))


def file_list(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three states, saved as of steps 10, 20 and 30."""
    folder = tmp_path_factory.mktemp("states") / "run"
    for step in (10, 20, 30):
        saved_states.save(folder, step, state(step), ABOUT)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole, tmp_path / "run"))


def test_restored_state_is_the_newest_bit_for_bit(folder):
    found = saved_states.restore(folder, state(0))
    assert (found.step, found.about, found.damaged) == (30, ABOUT, ())
    chex.assert_trees_all_equal(found.state, state(30))
    assert jax.tree.structure(found.state) == jax.tree.structure(state(0))


def test_three_states_are_kept_and_what_was_not_finished_goes(folder):
    (folder / "35" / "state").mkdir(parents=True)
    saved_states.save(folder, 40, state(40), ABOUT)
    assert sorted(place.name for place in folder.iterdir()) == ["20", "30", "40"]


def test_damaged_newer_states_push_out_no_intact_one(folder):
    for step in (20, 30):
        (folder / str(step) / "digests.json").write_text("{}")
    for step in (12, 14):
        saved_states.save(folder, step, state(step), ABOUT)
    assert sorted(place.name for place in folder.iterdir()) == ["10", "12", "14"]


def test_state_that_cannot_be_read_is_passed_over(folder, monkeypatch):
    digest = saved_states.files.digest

    def failing(file):
        if "/30/" in str(file):
            raise OSError(5, "Input/output error", str(file))
        return digest(file)

    monkeypatch.setattr(saved_states.files, "digest", failing)
    found = saved_states.restore(folder, state(0))
    assert found.step == 20 and "Input/output error" in found.damaged[0]


def test_nothing_is_restored_where_nothing_was_finished(tmp_path):
    assert saved_states.restore(tmp_path / "none", state(0)) is None
    (tmp_path / "10" / "state").mkdir(parents=True)
    assert saved_states.restore(tmp_path, state(0)) is None


def flips(content):
    """Yields a content with one bit flipped, at places spread over it."""
    rng = np.random.default_rng(len(content))
    for position in rng.integers(0, max(len(content), 1), min(len(content), 4)):
        changed = bytearray(content)
        changed[position] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def truncations(content):
    """Yields the beginnings of a content."""
    for size in {0, 1, len(content) // 2, len(content) - 1}:
        if 0 <= size < len(content):
            yield content[:size]


@pytest.mark.parametrize("damage", [flips, truncations])
def test_damaged_file_never_gives_another_state(folder, damage):
    for file in file_list(folder / "30"):
        content = file.read_bytes()
        for changed in damage(content):
            if changed.strip() == content.strip():
                continue
            file.write_bytes(changed)
            found = saved_states.restore(folder, state(0))
            chex.assert_trees_all_equal(found.state, state(20))
            assert (found.step, found.about) == (20, ABOUT)
            assert len(found.damaged) == 1 and "/30" in found.damaged[0]
            with pytest.raises(errors.DamageError):
                saved_states.check(folder, 30)
        file.write_bytes(content)
    assert saved_states.check(folder, 30) == ABOUT


def test_states_are_tried_from_the_newest_and_refused_when_none_is_left(folder):
    for step, expected in ((30, 20), (20, 10)):
        (folder / str(step) / "digests.json").write_text("{}")
        found = saved_states.restore(folder, state(0))
        assert found.step == expected
    (folder / "10" / "digests.json").write_text("")
    before = file_list(folder)
    with pytest.raises(errors.DamageError, match="E601.*--restart"):
        saved_states.restore(folder, state(0))
    assert file_list(folder) == before


def test_state_under_the_name_of_another_step_is_damaged(folder):
    shutil.rmtree(folder / "30")
    shutil.copytree(folder / "20", folder / "30")
    found = saved_states.restore(folder, state(0))
    assert found.step == 20 and "holds step 20" in found.damaged[0]


def test_state_of_other_shapes_is_damaged(folder):
    def wider(leaf):
        return np.zeros((*leaf.shape, 2), leaf.dtype)

    with pytest.raises(errors.DamageError, match="E601"):
        saved_states.restore(folder, jax.tree.map(wider, state(0)))


def test_state_that_the_disk_changed_is_not_counted(folder, monkeypatch):
    read = saved_states._read

    def changed(place, like):
        found = read(place, like)
        next(array for array in found.values() if array.ndim == 2)[0, 0] += 1
        return found

    monkeypatch.setattr(saved_states, "_read", changed)
    with pytest.raises(errors.MachineError, match="E405"):
        saved_states.save(folder, 40, state(40), ABOUT)
    monkeypatch.undo()
    assert saved_states.restore(folder, state(0)).step == 30


def test_about_is_digested_too(folder):
    file = folder / "30" / "digests.json"
    held = json.loads(file.read_text())
    held["about"]["metrics"]["size"] = 4
    file.write_text(json.dumps(held))
    assert saved_states.restore(folder, state(0)).step == 20
