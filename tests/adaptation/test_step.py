import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adarank_jax.adaptation import parallel
from adarank_jax.adaptation.objectives import OBJECTIVES, expert_labels
from adarank_jax.adaptation.step import Batch, State, make_step
from adarank_jax.core import masks, merge, svd
from tests.adaptation import problems

NUM_STEPS = 20
LEARNING_RATE = 0.05
MASKS = {"straight_through": masks.straight_through, "soft": problems.SOFT}


def run_alone(problem, objective, steps=NUM_STEPS):
    optimizer = optax.adam(LEARNING_RATE)
    variables = problems.variables(problem)
    state = State(variables, optimizer.init(variables))
    step = jax.jit(
        make_step(problem.encode, problem.classify, objective, problem.mask, optimizer)
    )
    history = []
    for number in range(steps):
        state, metrics = step(
            state,
            problem.origin,
            problem.factors,
            problem.heads,
            problems.batch(number),
        )
        history.append(metrics)
    return state, history


def pmapped(problem, objective, devices):
    """Returns the compiled step, and its arguments but for the batch."""
    optimizer = optax.adam(LEARNING_RATE)
    variables = problems.variables(problem)
    like = State(variables, optimizer.init(variables))
    state = parallel.shard_state(like, devices)
    factors = parallel.shard_factors(problem.factors, devices)
    origin, heads = parallel.replicate((problem.origin, problem.heads), devices)
    step = make_step(
        problem.encode,
        problem.classify,
        objective,
        problem.mask,
        optimizer,
        parallel.AXIS,
    )
    step = parallel.compile_step(step, state, factors, devices)
    return step, like, state, (origin, factors, heads)


def run_pmapped(problem, objective, devices, steps=NUM_STEPS):
    step, like, state, (origin, factors, heads) = pmapped(problem, objective, devices)
    history = []
    for number in range(steps):
        examples = parallel.shard_batch(problems.batch(number), devices)
        state, metrics = step(state, origin, factors, heads, examples)
        history.append(metrics)
    merged = parallel.merged_params(
        origin, factors, state.variables, problem.mask, devices
    )
    return parallel.gather_state(state, like), history, merged


@pytest.mark.parametrize(
    ("count", "objective", "mask"),
    [
        (1, "entropy", "straight_through"),
        (8, "entropy", "straight_through"),
        (4, "expert_labels", "straight_through"),
        (8, "expert_labels", "soft"),
    ],
)
def test_pmapped_step_equals_single_device(count, objective, mask):
    problem = problems.problem(MASKS[mask])
    devices = jax.devices()[:count]
    assert len(devices) == count
    alone, alone_history = run_alone(problem, OBJECTIVES[objective])
    state, history, _ = run_pmapped(problem, OBJECTIVES[objective], devices)
    chex.assert_trees_all_close(history[0], alone_history[0], atol=1e-6)
    chex.assert_trees_all_close(history[-1], alone_history[-1], atol=1e-5)
    chex.assert_trees_all_close(state, alone, atol=1e-5)


def test_first_gradient_is_that_of_one_device_to_rounding():
    problem = problems.problem(problems.SOFT)
    alone, _ = run_alone(problem, OBJECTIVES["entropy"], steps=1)
    state, _, _ = run_pmapped(problem, OBJECTIVES["entropy"], jax.devices(), steps=1)
    chex.assert_trees_all_close(
        state.optimizer[0].mu, alone.optimizer[0].mu, atol=1e-7, rtol=1e-4
    )


@pytest.mark.parametrize("count", [1, 8])
def test_merged_params_of_shards_equal_those_of_one_device(count):
    problem = problems.problem()
    state, _, merged = run_pmapped(
        problem, OBJECTIVES["entropy"], jax.devices()[:count]
    )
    expected = merge.merged_params(
        problem.origin, problem.factors, state.variables, problem.mask
    )
    chex.assert_trees_all_close(merged, expected, atol=1e-5)


def test_adaptation_of_masks_held_at_one_equals_dense_task_vectors():
    full = problems.problem(lambda logits: logits * 0.0 + 1.0)
    dense = problems.problem(is_decomposed=lambda path, leaf: False)
    one, _ = run_alone(full, OBJECTIVES["entropy"])
    two, _ = run_alone(dense, OBJECTIVES["entropy"])
    chex.assert_trees_all_close(
        one.variables.coefficients, two.variables.coefficients, atol=1e-4
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_adaptation_lowers_its_objective(objective):
    problem = problems.problem()
    optimizer = optax.adam(LEARNING_RATE)
    variables = problems.variables(problem)
    state = State(variables, optimizer.init(variables))
    step = jax.jit(
        make_step(
            problem.encode,
            problem.classify,
            OBJECTIVES[objective],
            problem.mask,
            optimizer,
        )
    )
    losses = []
    for _ in range(30):
        state, metrics = step(
            state, problem.origin, problem.factors, problem.heads, problems.batch(0)
        )
        losses.append(float(metrics.loss.sum()))
    assert losses[-1] < losses[0] - 0.05


def test_step_trains_masks_and_coefficients_of_every_task():
    problem = problems.problem()
    state, _ = run_alone(problem, OBJECTIVES["entropy"], steps=1)
    start = problems.variables(problem)
    moved = jax.tree.map(
        lambda after, before: np.abs(after - before) > 1e-3, state.variables, start
    )
    assert all(leaf.all() for leaf in jax.tree.leaves(moved))


def test_padded_directions_never_move():
    problem, devices = problems.problem(), jax.devices()
    step, _, state, arguments = pmapped(problem, OBJECTIVES["entropy"], devices)
    for number in range(3):
        examples = parallel.shard_batch(problems.batch(number), devices)
        state, _ = step(state, *arguments, examples)
    logits = np.asarray(state.variables.mask_logits["first"]["kernel"])
    assert logits.shape == (8, 3, 1)
    assert np.abs(logits[: problems.HIDDEN]).min() > 0
    assert not logits[problems.HIDDEN :].any()


def test_step_leaves_the_arrays_of_its_caller_alone():
    problem, devices = problems.problem(), jax.devices()[:1]
    step, start, state, arguments = pmapped(problem, OBJECTIVES["entropy"], devices)
    before = jax.tree.map(np.array, start)
    step(state, *arguments, parallel.shard_batch(problems.batch(0), devices))
    chex.assert_trees_all_equal(jax.tree.map(np.array, start), before)


def test_shards_hold_one_device_share_of_the_factors():
    rng = np.random.default_rng(0)
    vectors = {"kernel": rng.normal(size=(3, 64, 48)).astype(np.float32)}
    factors = svd.decompose_tree(vectors, lambda path, leaf: True)
    shards = parallel.shard_factors(factors, jax.devices())
    for whole, sharded in zip(
        jax.tree.leaves(factors), jax.tree.leaves(shards), strict=True
    ):
        (piece, *_) = sharded.addressable_shards
        assert piece.data.nbytes * 8 == whole.nbytes


def test_compiled_step_takes_an_eighth_of_the_factors():
    rng = np.random.default_rng(0)
    origin = {"kernel": np.zeros((64, 64), np.float32)}
    vectors = {"kernel": rng.normal(size=(4, 64, 64)).astype(np.float32)}
    factors = svd.decompose_tree(vectors, lambda path, leaf: True)
    variables = merge.init_variables(factors, 0.3)
    heads = [np.ones((64, 3), np.float32)] * 4
    batch = Batch(rng.normal(size=(4, 8, 64)).astype(np.float32))
    devices = jax.devices()
    sizes = {}
    for count in (1, 8):
        used = devices[:count]
        optimizer = optax.sgd(0.1)
        state = parallel.shard_state(State(variables, optimizer.init(variables)), used)
        shards = parallel.shard_factors(factors, used)
        step = make_step(
            lambda params, inputs: inputs @ params["kernel"],
            lambda features, head: features @ head,
            OBJECTIVES["entropy"],
            masks.straight_through,
            optimizer,
            parallel.AXIS,
        )
        compiled = (
            parallel.compile_step(step, state, shards, used)
            .lower(
                state,
                *parallel.replicate((origin,), used),
                shards,
                parallel.replicate(heads, used),
                parallel.shard_batch(batch, used),
            )
            .compile()
        )
        sizes[count] = compiled.memory_analysis().argument_size_in_bytes
    replicated = origin["kernel"].nbytes + 4 * heads[0].nbytes
    assert sizes[8] <= (sizes[1] - replicated) / 8 + replicated + 1024


def test_step_compiles_once():
    problem = problems.problem()
    chex.clear_trace_counter()
    step = make_step(
        problem.encode,
        problem.classify,
        OBJECTIVES["entropy"],
        problem.mask,
        optax.adam(LEARNING_RATE),
    )
    step = jax.jit(chex.assert_max_traces(step, n=1))
    variables = problems.variables(problem)
    state = State(variables, optax.adam(LEARNING_RATE).init(variables))
    for number in range(3):
        state, _ = step(
            state,
            problem.origin,
            problem.factors,
            problem.heads,
            problems.batch(number),
        )


def test_shard_batch_refuses_a_batch_that_does_not_divide():
    with pytest.raises(ValueError, match="multiple of 8"):
        parallel.shard_batch(problems.batch(0, size=12), jax.devices())


def test_expert_labels_refuses_missing_labels():
    with pytest.raises(ValueError, match="labels"):
        expert_labels(jnp.zeros((2, 3)), None)
