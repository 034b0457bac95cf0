import chex
import jax
import numpy as np
import optax
import pytest

from adarank_jax.adaptation import parallel, per_device
from adarank_jax.adaptation.objectives import OBJECTIVES
from adarank_jax.adaptation.step import Batch, State, make_step
from adarank_jax.core import masks, merge, svd
from tests.adaptation import problems

NUM_STEPS = 20
WRAPPERS = ("pmap", "shard_map")
# Adam forgets the scale of a gradient; gradient descent shows it.
OPTIMIZERS = {
    "adam": lambda: optax.adam(0.02),
    "sgd": lambda: optax.sgd(0.05),
}
MASKS = {"straight_through": masks.straight_through, "soft": problems.SOFT}


class Sharded:
    """The step of a problem on some devices, with everything put there."""

    def __init__(self, problem, objective, optimizer, devices, wrapper):
        variables = problems.variables(problem)
        self.start = State(variables, optimizer.init(variables))
        self.state = parallel.shard_state(self.start, devices)
        self.factors = parallel.shard_factors(problem.factors, devices)
        self.origin, self.heads = parallel.replicate(
            (problem.origin, problem.heads), devices
        )
        self.devices = devices
        self.traces = []
        step = make_step(
            problem.encode,
            problem.classify,
            OBJECTIVES[objective],
            problem.mask,
            optimizer,
            parallel.AXIS,
        )

        def traced(*arguments):
            self.traces.append(jax.tree.map(np.shape, arguments))
            return step(*arguments)

        self.step = parallel.compile_step(
            traced, self.state, self.factors, devices, wrapper
        )

    def arguments(self, batch):
        shards = parallel.shard_batch(batch, self.devices)
        return self.state, self.origin, self.factors, self.heads, shards

    def run(self, num_steps=NUM_STEPS):
        history = []
        for number in range(num_steps):
            self.state, metrics = self.step(*self.arguments(problems.batch(number)))
            history.append(metrics)
        return parallel.gather_state(self.state, self.start), history


def alone(problem, objective, optimizer):
    variables = problems.variables(problem)
    state, history = State(variables, optimizer.init(variables)), []
    step = jax.jit(
        make_step(
            problem.encode,
            problem.classify,
            OBJECTIVES[objective],
            problem.mask,
            optimizer,
        )
    )
    for number in range(NUM_STEPS):
        state, metrics = step(
            state,
            problem.origin,
            problem.factors,
            problem.heads,
            problems.batch(number),
        )
        history.append(metrics)
    return state, history


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("objective", "mask"), [("entropy", "straight_through"), ("expert_labels", "soft")]
)
def test_pmap_and_shard_map_and_one_device_agree_to_1e_6(objective, mask, optimizer):
    problem = problems.problem(MASKS[mask])
    build = OPTIMIZERS[optimizer]
    expected, expected_history = alone(problem, objective, build())
    start = problems.variables(problem)
    # That much was learned: a wrong gradient would be far more than 1e-6 off.
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), expected.variables, start
    )
    assert min(jax.tree.leaves(moved)) > 3e-4
    for wrapper in WRAPPERS:
        sharded = Sharded(problem, objective, build(), jax.devices(), wrapper)
        state, history = sharded.run()
        chex.assert_trees_all_close(state, expected, atol=1e-6, rtol=0)
        for ours, theirs in zip(history, expected_history, strict=True):
            chex.assert_trees_all_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_masks_flip_where_wrappers_and_one_device_are_compared():
    problem = problems.problem()
    state, _ = alone(problem, "entropy", OPTIMIZERS["adam"]())
    before = problems.variables(problem).mask_logits
    flipped = jax.tree.map(
        lambda a, b: int(((a > 0) != (b > 0)).sum()),
        state.variables.mask_logits,
        before,
    )
    assert sum(jax.tree.leaves(flipped)) > 5


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("rank", [64, 60])  # 60 is padded to 64 on eight devices
def test_arguments_of_a_device_are_an_eighth_of_factors_and_state(wrapper, rank):
    rng = np.random.default_rng(0)
    tasks, classes, size = 4, 3, 64
    problem = linear_problem(rng, tasks, size, rank, classes)
    batch = Batch(rng.normal(size=(tasks, 8, size)).astype(np.float32))
    found = {}
    for count in (1, 8):
        sharded = Sharded(
            problem, "entropy", optax.adam(0.1), jax.devices()[:count], wrapper
        )
        compiled = sharded.step.lower(*sharded.arguments(batch)).compile()
        found[count] = compiled.memory_analysis().argument_size_in_bytes
    replicated = 4 * (rank * size + tasks * size * classes + 3 * tasks + 1)
    padded = 4 * 8 * -(-rank // 8) * tasks * (rank + size + 1 + 3)
    examples = batch.inputs.nbytes
    # 1 kB: XLA counts small arrays by whole cache lines.
    assert found[1] >= replicated + padded * rank / (8 * -(-rank // 8)) - 1024
    assert abs(found[8] - (replicated + (padded + examples) / 8)) < 1024


def linear_problem(rng, tasks, size, rank, classes):
    """One decomposed matrix, `(rank, size)`."""
    vectors = {"kernel": rng.normal(size=(tasks, rank, size)).astype(np.float32)}
    return problems.Problem(
        tasks=[str(i) for i in range(tasks)],
        encode=lambda params, inputs: (
            inputs[:, : params["kernel"].shape[0]] @ params["kernel"]
        ),
        classify=lambda features, head: features @ head,
        heads=[rng.normal(size=(size, classes)).astype(np.float32)] * tasks,
        origin={"kernel": np.zeros((rank, size), np.float32)},
        factors=svd.decompose_tree(vectors, lambda path, leaf: True),
        mask=masks.straight_through,
    )


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_step_reuses_the_memory_of_the_state_that_it_is_given(wrapper):
    sharded = Sharded(
        problems.problem(), "entropy", optax.adam(0.1), jax.devices(), wrapper
    )
    state, origin, factors, heads, batch = sharded.arguments(problems.batch(0))
    sharded.step(state, origin, factors, heads, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    kept = jax.tree.leaves((origin, factors, heads, batch))
    assert not any(leaf.is_deleted() for leaf in kept)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_step_is_traced_once_for_all_batches(wrapper):
    sharded = Sharded(
        problems.problem(), "entropy", optax.adam(0.1), jax.devices(), wrapper
    )
    sharded.run(4)
    assert len(sharded.traces) == 1


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("count", [1, 8])
def test_merged_params_of_shards_equal_those_of_one_device(wrapper, count):
    problem, devices = problems.problem(), jax.devices()[:count]
    sharded = Sharded(problem, "entropy", optax.adam(0.1), devices, wrapper)
    state, _ = sharded.run(2)
    merged = parallel.merged_params(
        sharded.origin,
        sharded.factors,
        sharded.state.variables,
        problem.mask,
        devices,
        wrapper,
    )
    expected = merge.merged_params(
        problem.origin, problem.factors, state.variables, problem.mask
    )
    chex.assert_trees_all_close(merged, expected, atol=1e-6)


def test_factors_of_eight_devices_put_together_are_those_of_one():
    problem = problems.problem()
    factors = problem.factors["first"]["kernel"]  # rank 6: six devices, two of padding
    shards = parallel.shard_factors(problem.factors, jax.devices())["first"]["kernel"]
    tasks, rank = factors.s.shape
    s = np.asarray(shards.s).transpose(1, 2, 0).reshape(tasks, -1)
    np.testing.assert_array_equal(s[:, :rank], factors.s)
    assert not s[:, rank:].any()
    u = np.asarray(shards.u).reshape(8, -1, tasks, 1).transpose(1, 2, 3, 0)
    np.testing.assert_array_equal(
        u.reshape(len(u), tasks, -1)[..., :rank].reshape(len(u), -1), factors.u
    )


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_factors_of_devices_are_dealt_out(count):
    factors = drawn_factors(tasks=2, rows=24, rank=10)
    shards = parallel.shard_factors({"w": factors}, jax.devices()[:count])
    u, s, vt = map(np.asarray, shards["w"])
    k = -(-10 // count)
    assert s.shape == (count, 2, k)
    for task, direction in np.ndindex(2, 10):
        device, place = direction % count, direction // count
        whole = task * 10 + direction
        column = task * k + place
        assert s[device, task, place] == factors.s[task, direction]
        np.testing.assert_array_equal(u[device][:, column], factors.u[:, whole])
        np.testing.assert_array_equal(vt[device][column], factors.vt[whole])
    assert np.count_nonzero(s) == 2 * 10  # and the rest is padding


def drawn_factors(tasks, rows, rank):
    """Draws factors, no number of them zero."""
    rng = np.random.default_rng(0)
    shapes = (rows, tasks * rank), (tasks, rank), (tasks * rank, rows)
    drawn = (rng.uniform(1, 2, shape).astype(np.float32) for shape in shapes)
    return svd.SVDFactors(*drawn)


@pytest.mark.parametrize("rank", [64, 60])
def test_every_device_keeps_its_share_of_the_leading_directions(rank):
    factors = {"w": drawn_factors(3, 64, rank)}
    variables = merge.init_variables(factors, 0.3, rank_ratio=0.16)
    shards = parallel.shard_state(State(variables, ()), jax.devices())
    kept = np.asarray(shards.variables.mask_logits["w"]) > 0  # devices, tasks, k
    whole = np.asarray(variables.mask_logits["w"]) > 0
    np.testing.assert_array_equal(kept.sum(axis=(0, 2)), whole.sum(axis=1))
    assert np.ptp(kept.sum(axis=2), axis=0).max() <= 1


def test_factors_on_one_device_are_the_mapped_file_itself(tmp_path):
    drawn = drawn_factors(3, 64, 64)
    mapped = svd.SVDFactors(
        *(
            np.load(written(tmp_path / f"{name}.npy", array), mmap_mode="r")
            for name, array in drawn._asdict().items()
        )
    )
    shards = parallel.shard_factors({"w": mapped}, jax.devices()[:1])["w"]
    for shard, file in zip(shards, mapped, strict=True):
        (piece,) = shard.addressable_shards
        assert piece.data.unsafe_buffer_pointer() == file.ctypes.data


def written(file, array):
    """Writes an array, aligned to 64 bytes as `np.save` does, and returns the file."""
    np.save(file, array)
    return file


@pytest.mark.parametrize("count", [1, 4, 8])
def test_gather_state_undoes_shard_state(count):
    problem = problems.problem()
    variables = problems.variables(problem)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), variables)
    state = State(variables, optax.adam(0.1).init(variables))
    devices = jax.devices()[:count]
    gathered = parallel.gather_state(parallel.shard_state(state, devices), state)
    chex.assert_trees_all_equal(gathered, state)


def test_choose_takes_pmap_for_one_process_unless_told():
    assert per_device.choose("auto") == "pmap"
    assert per_device.choose("shard_map") == "shard_map"
