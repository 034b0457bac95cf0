"""Groups of tasks and recomputation change memory and time, never the numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adarank_jax.adaptation import parallel
from adarank_jax.adaptation.objectives import OBJECTIVES
from adarank_jax.adaptation.step import Batch, State, make_step
from adarank_jax.core import masks, merge, svd
from tests.adaptation import problems

OPTIONS = (
    {"tasks_at_once": 1},
    {"tasks_at_once": 2},  # of three tasks: the last group is smaller
    {"remat": True},
    {"remat": True, "tasks_at_once": 2},
)


def run(objective="entropy", steps=20, devices=None, with_labels=True, **options):
    problem = problems.problem()
    optimizer = optax.sgd(0.05)
    variables = problems.variables(problem)
    start = State(variables, optimizer.init(variables))
    parts = (problem.encode, problem.classify, OBJECTIVES[objective], problem.mask)
    if devices is None:
        step = jax.jit(make_step(*parts, optimizer, **options))
        state, origin, factors = start, problem.origin, problem.factors
        heads, place = problem.heads, lambda batch: batch
    else:
        state = parallel.shard_state(start, devices)
        factors = parallel.shard_factors(problem.factors, devices)
        origin, heads = parallel.replicate((problem.origin, problem.heads), devices)
        step = make_step(*parts, optimizer, parallel.AXIS, **options)
        step = parallel.compile_step(step, state, factors, devices, "shard_map")
        place = lambda batch: parallel.shard_batch(batch, devices)
    history = []
    for number in range(steps):
        batch = problems.batch(number)
        batch = batch if with_labels else batch._replace(labels=None)
        state, metrics = step(state, origin, factors, heads, place(batch))
        history.append(metrics)
    if devices is not None:
        state = parallel.gather_state(state, start)
    return state, history


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_groups_of_tasks_give_the_same_steps(objective, options):
    chex.assert_trees_all_close(
        run(objective, **options), run(objective), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("options", OPTIONS[:2] + OPTIONS[-1:], ids=str)
def test_groups_of_tasks_give_the_same_steps_on_eight_devices(options):
    found = run(devices=jax.devices(), **options)
    chex.assert_trees_all_close(found, run(), atol=1e-6, rtol=0)


def test_groups_need_no_labels():
    options = {"tasks_at_once": 1, "with_labels": False}
    chex.assert_trees_all_close(
        run(steps=2, **options), run(steps=2), atol=1e-6, rtol=0
    )


def jitted(mask=masks.straight_through, num_layers=4, **options):
    """Returns a step whose activations are larger than its weights, and arguments."""
    rng = np.random.default_rng(0)
    names = [f"layer_{i}" for i in range(num_layers)]
    origin = {name: np.zeros((32, 32), np.float32) for name in names}
    vectors = {name: rng.normal(size=(8, 32, 32)).astype(np.float32) for name in names}
    factors = svd.decompose_tree(vectors, lambda path, leaf: True)
    variables = merge.init_variables(factors, 0.3)
    optimizer = optax.sgd(0.1)

    def encode(params, x):
        for kernel in params.values():
            x = jnp.sin(x @ kernel)
        return x

    step = make_step(
        encode,
        lambda features, head: features @ head,
        OBJECTIVES["entropy"],
        mask,
        optimizer,
        **options,
    )
    state = State(variables, optimizer.init(variables))
    heads = [np.ones((32, 3), np.float32)] * 8
    batch = Batch(np.zeros((8, 256, 32), np.float32))
    return jax.jit(step), (state, origin, factors, heads, batch)


def compiled(**options):
    """Compiles that step."""
    step, arguments = jitted(**options)
    return step.lower(*arguments).compile()


def test_one_task_at_a_time_needs_the_activations_of_one():
    def temporary(count):
        return compiled(tasks_at_once=count).memory_analysis().temp_size_in_bytes

    assert temporary(1) < temporary(4) / 2 < temporary(8) / 3


def test_remat_merges_again():
    merge_flops = 4 * 2 * 32 * 32 * (8 * 32)
    with_remat, without = (
        compiled(remat=remat).cost_analysis()["flops"] for remat in (True, False)
    )
    assert with_remat >= without + merge_flops


def test_make_step_refuses_no_task_at_once():
    with pytest.raises(ValueError, match="tasks_at_once"):
        compiled(tasks_at_once=0)


def merges(**options):
    """Counts the matrices that a step of eight tasks and two layers merges."""
    counted = []

    def count_one():
        counted.append(1)
        return np.float32(1)

    def mask(logits):
        # As the merge itself, this is left out where nobody reads what it returns; a
        # callback with an effect would run all the same.
        one = jax.pure_callback(count_one, jax.ShapeDtypeStruct((), jnp.float32))
        return one * masks.straight_through(logits)

    program, arguments = jitted(mask, 2, **options)
    jax.block_until_ready(program(*arguments))
    return len(counted)


def test_remat_merges_again_forward_and_what_the_gradient_needs_backward():
    assert merges(tasks_at_once=3) == 2
    # Besides those two, two forward and one backward: the first layer's gradient does
    # not need its kernel.
    assert merges(tasks_at_once=8, remat=True) == 2 + 3
    # Two groups of three are a loop, out of which XLA on a CPU takes what stays the
    # same there; the rest, two tasks, is a group of its own.
    assert merges(tasks_at_once=3, remat=True) == 2 + 3 + 3
