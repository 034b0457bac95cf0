import types

import jax
import jax.numpy as jnp
import pytest

from adarank_jax import errors
from adarank_jax.adaptation import memory


def test_needs_count_temporaries_and_results_but_not_what_is_donated():
    def step(state, x):
        return state + 1.0, (x @ x.T).sum()

    state, x = jnp.ones((1000, 250)), jnp.ones((1000, 10))
    plain = memory.needs(jax.jit(step), state, x)
    donated = memory.needs(jax.jit(step, donate_argnums=0), state, x)
    assert plain.arguments == 4 * (state.size + x.size)
    assert plain.beyond - donated.beyond == 4 * state.size


def test_needs_compile_what_the_call_runs(caplog):
    step = jax.jit(lambda x: jnp.sin(x) * 3)
    x = jnp.ones(7)
    with jax.log_compiles(True):
        memory.needs(step, x)
        step(x)
    compiled = [r for r in caplog.records if "Finished XLA compilation" in r.message]
    assert len(compiled) == 1


@pytest.mark.parametrize("beyond", [10**9, 10**13])
def test_step_that_does_not_fit_is_refused_with_what_would_help(monkeypatch, beyond):
    monkeypatch.setattr(memory, "free_on_host", lambda: 10**10)
    needs = memory.Needs(0, beyond)
    if beyond < 10**10:
        memory.check(needs, jax.devices()[:2])
        return
    with pytest.raises(errors.MachineError, match="E410.*20000.00 GB.*10.00.*remat"):
        memory.check(needs, jax.devices()[:2])


@pytest.mark.parametrize(("limit", "expected"), [("max", 10**12), ("5000", 2300)])
def test_free_memory_is_that_of_the_container(tmp_path, monkeypatch, limit, expected):
    machine = types.SimpleNamespace(available=10**12)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 2700\ninactive_file 300\n")
    assert memory.free_on_host(tmp_path) == expected
    assert memory.free_on_host(tmp_path / "none") == 10**12
