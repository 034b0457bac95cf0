"""Our step, compiled and placed as `adaptation.loop.adapt` does it."""

from collections.abc import Callable

import jax
import optax

from adarank_jax import tree
from adarank_jax.adaptation import loop, objectives, parallel
from adarank_jax.adaptation.step import Batch, State, make_step
from adarank_jax.core import masks, merge
from benchmarks import shapes
from benchmarks.shapes import Case


def make_run(case: Case, learning_rate: float) -> Callable[[], float]:
    """Returns a function that does one step on all local devices.

    Args:
        case: what is merged; its arrays are copied.
        learning_rate: of Adam.

    Returns:
        It returns the sum of the tasks' mean entropies before the step.
    """
    devices = jax.local_devices()
    factors = tree.unflatten(case.factors)
    variables = merge.init_variables(factors, shapes.COEFFICIENT, case.rank_ratio)
    optimizer = optax.adam(learning_rate)
    start = State(variables, optimizer.init(variables))
    factors = parallel.shard_factors(factors, devices)
    origin, heads = parallel.replicate(
        (tree.unflatten(case.origin), case.heads), devices
    )
    state = parallel.shard_state(start, devices)
    module, classify, inputs = case.module, case.classify, case.inputs
    step = make_step(
        lambda params, inputs: module.apply({"params": params}, inputs),
        classify,
        objectives.entropy,
        masks.straight_through,
        optimizer,
        parallel.AXIS,
        loop.tasks_at_once(loop.AdaptationConfig(), devices),
    )
    step = parallel.compile_step(step, state, factors, devices)

    def run():
        nonlocal state
        batch = parallel.shard_batch(Batch(inputs), devices)
        state, metrics = step(state, origin, factors, heads, batch)
        jax.block_until_ready(state)
        return float(metrics.loss.sum())

    return run
