"""Merged parameters."""

import functools

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies
from jax.sharding import Mesh, PartitionSpec

from adarank_jax import tree
from adarank_jax.core import losses, masks, merge, svd, task_vectors
from adarank_jax.core.merge import Variables
from adarank_jax.core.svd import SVDFactors
from tests import helpers
from tests.oracles import adarank, static

SEEDS = strategies.integers(0, 2**32 - 1)
TEMPERATURES = (1.0, 10.0)
IS_SOFT = (False, True)
LINEAR = {"kernel": (6, 5), "bias": (5,)}


def problem(seed=0, num_tasks=helpers.NUM_TASKS, shapes=None):
    """Draws origin, experts and factors; all kernels are decomposed."""
    origin, finetuned = helpers.task_set(seed, num_tasks, shapes)
    vectors = task_vectors.task_vectors(origin, finetuned)
    factors = svd.decompose_tree(vectors, lambda path, _: path.endswith("kernel"))
    return origin, finetuned, factors


def draw_variables(seed, factors):
    """Draws coefficients and mask logits, the latter away from the threshold."""
    flat = tree.flatten(factors)
    coefficients, mask_logits = {}, {}
    for i, (path, leaf) in enumerate(flat.items()):
        num_tasks = leaf.s.shape[0] if svd.is_factors(leaf) else leaf.shape[0]
        coefficients[path] = helpers.matrix([seed, i], num_tasks)
        mask_logits[path] = None
        if svd.is_factors(leaf):
            draw = helpers.matrix([seed, i, 1], *leaf.s.shape)
            mask_logits[path] = draw + np.copysign(np.float32(0.01), draw)
    return helpers.to_jax(
        Variables(tree.unflatten(coefficients), tree.unflatten(mask_logits))
    )


def oracle_arguments(origin, finetuned, variables):
    """Turns a problem to what the oracle takes."""
    return (
        helpers.flat64(origin),
        [helpers.flat64(model) for model in finetuned],
        helpers.flat64(variables.coefficients),
        helpers.flat64(variables.mask_logits),
    )


def mask_function(temperature, is_soft):
    """Returns the mask of the package."""
    function = masks.soft if is_soft else masks.straight_through
    return functools.partial(function, temperature=temperature)


def permute(factors, order):
    """Permutes the tasks of a factor tree."""

    def leaf_tasks(_, leaf):
        if not svd.is_factors(leaf):
            return leaf[order]
        tasks, rank = leaf.s.shape
        u = leaf.u.reshape(-1, tasks, rank)[:, order]
        vt = leaf.vt.reshape(tasks, rank, -1)[order]
        return SVDFactors(
            u.reshape(-1, tasks * rank), leaf.s[order], vt.reshape(tasks * rank, -1)
        )

    return tree.map_with_path(leaf_tasks, factors)


@pytest.mark.parametrize("is_soft", IS_SOFT, ids=("hard", "soft"))
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_merged_params_agree_with_oracle(temperature, is_soft):
    origin, finetuned, factors = problem()
    variables = draw_variables(7, factors)
    arguments = oracle_arguments(origin, finetuned, variables)
    theirs = adarank.merge(*arguments, temperature, is_soft)
    mask = mask_function(temperature, is_soft)
    ours = merge.merged_params(origin, factors, variables, mask)
    helpers.assert_close(ours, theirs)


@pytest.mark.parametrize("is_soft", IS_SOFT, ids=("hard", "soft"))
def test_merged_params_gradients_agree_with_oracle(is_soft):
    origin, finetuned, factors = problem(shapes=LINEAR)
    variables = draw_variables(8, factors)
    inputs = helpers.matrix(9, 10, 6)
    mask = mask_function(10.0, is_soft)

    def loss(variables):
        params = merge.merged_params(origin, factors, variables, mask)
        logits = inputs @ params["kernel"] + params["bias"][None]
        return losses.softmax_entropy(logits).mean()

    ours = jax.grad(loss)(variables)
    arguments = oracle_arguments(origin, finetuned, variables)
    merged = adarank.merge(*arguments, 10.0, is_soft)
    _, by_merged = adarank.linear_loss(merged, inputs.astype(np.float64))
    by_coefficient, by_logit = adarank.gradients(*arguments, 10.0, by_merged, is_soft)
    helpers.assert_close(ours.coefficients, by_coefficient, 1e-4)
    helpers.assert_close(ours.mask_logits, by_logit, 1e-4)


@hypothesis.given(coefficient=strategies.floats(-2.0, 2.0, width=32))
def test_merged_params_with_full_masks_are_task_arithmetic(coefficient):
    origin, finetuned, factors = problem()
    ours = merge.static_params(origin, factors, coefficient, 1.0)
    theirs = static.task_arithmetic(
        helpers.flat64(origin), [helpers.flat64(m) for m in finetuned], coefficient
    )
    helpers.assert_close(ours, theirs)


def test_merged_params_with_empty_masks_keep_the_decomposed_origin():
    origin, _, factors = problem()
    variables = merge.init_variables(factors, 1.0, 1.0, kept=-1.0)
    ours = tree.flatten(merge.merged_params(origin, factors, variables))
    for path in helpers.DECOMPOSED:
        np.testing.assert_array_equal(ours[path], tree.flatten(origin)[path])


def test_merged_params_with_zero_coefficients_are_the_origin():
    origin, _, factors = problem()
    chex.assert_trees_all_equal(merge.static_params(origin, factors, 0.0), origin)


@hypothesis.given(seed=SEEDS)
def test_merged_params_of_one_task_in_full_are_the_finetuned_model(seed):
    origin, finetuned, factors = problem(seed % 10000, num_tasks=1)
    ours = merge.static_params(origin, factors, 1.0)
    chex.assert_trees_all_close(ours, finetuned[0], rtol=0, atol=1e-5)


@hypothesis.given(order=strategies.permutations(range(helpers.NUM_TASKS)))
def test_merged_params_do_not_depend_on_the_order_of_tasks(order):
    origin, _, factors = problem()
    variables = draw_variables(10, factors)
    order = np.array(order)
    permuted = jax.tree.map(lambda leaf: leaf[order], variables)
    ours = merge.merged_params(origin, permute(factors, order), permuted)
    theirs = merge.merged_params(origin, factors, variables)
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-5)


def test_merged_params_of_the_transposed_layout_are_transposed():
    origin, finetuned, factors = problem()
    variables = draw_variables(11, factors)
    turned = [helpers.transposed(model) for model in finetuned]
    vectors = task_vectors.task_vectors(helpers.transposed(origin), turned)
    turned_factors = svd.decompose_tree(vectors, lambda p, _: p.endswith("kernel"))
    ours = merge.merged_params(helpers.transposed(origin), turned_factors, variables)
    theirs = helpers.transposed(merge.merged_params(origin, factors, variables))
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-5)


def test_merged_params_keep_tree_and_shapes():
    origin, _, factors = problem()
    ours = merge.merged_params(origin, factors, draw_variables(12, factors))
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, origin)


def test_merged_params_jit_equals_eager():
    origin, _, factors = problem()
    variables = draw_variables(13, factors)
    chex.assert_trees_all_close(
        jax.jit(merge.merged_params)(origin, factors, variables),
        merge.merged_params(origin, factors, variables),
        rtol=0,
        atol=1e-6,
    )


def test_merged_params_trace_once_for_two_calls():
    origin, _, factors = problem()
    function = jax.jit(chex.assert_max_traces(merge.merged_params, n=1))
    function(origin, factors, draw_variables(14, factors))
    function(origin, factors, draw_variables(15, factors))


def test_merged_params_do_not_change_their_inputs():
    origin, _, factors = problem()
    copy = jax.tree.map(np.array, origin)
    merge.merged_params(origin, factors, draw_variables(16, factors))
    chex.assert_trees_all_equal(origin, copy)


@pytest.mark.parametrize("name", ("`factors`", "`variables.coefficients`"))
def test_merged_params_refuse_a_missing_tensor(name):
    origin, _, factors = problem()
    variables = draw_variables(17, factors)
    if name == "`factors`":
        factors = helpers.without(factors, "embedding")
    else:
        coefficients = helpers.without(variables.coefficients, "embedding")
        variables = variables._replace(coefficients=coefficients)
    with pytest.raises(ValueError, match=rf"(?s)`origin` and {name}: .*embedding"):
        merge.merged_params(origin, factors, variables)


def test_merged_params_refuse_mask_logits_of_another_model():
    origin, _, factors = problem()
    variables = draw_variables(18, factors)
    more = variables.mask_logits | {"extra": {"kernel": None}}
    with pytest.raises(ValueError, match="only in `variables.mask_logits`: extra/ker"):
        merge.merged_params(origin, factors, variables._replace(mask_logits=more))


@pytest.mark.parametrize("rank_ratio", (0.2, 0.5, 1.0))
def test_static_params_keep_the_leading_directions(rank_ratio):
    origin, finetuned, factors = problem()
    ours = merge.static_params(origin, factors, 0.7, rank_ratio)
    logits = {}
    for path in helpers.DECOMPOSED:
        rank = min(helpers.SHAPES[path])
        kept = np.arange(rank) < max(1, int(rank * rank_ratio))
        logits[path] = np.tile(np.where(kept, 1.0, -1.0), (helpers.NUM_TASKS, 1))
    theirs = adarank.merge(
        helpers.flat64(origin),
        [helpers.flat64(model) for model in finetuned],
        {path: np.full(helpers.NUM_TASKS, 0.7) for path in helpers.SHAPES},
        logits,
        10.0,
    )
    helpers.assert_close(ours, theirs)


def test_static_params_jit_equals_eager():
    origin, _, factors = problem()
    function = functools.partial(merge.static_params, coefficient=0.5, rank_ratio=0.4)
    chex.assert_trees_all_close(
        jax.jit(function)(origin, factors), function(origin, factors), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("rank_ratio", (0.0, 1.5))
def test_static_params_refuse_a_ratio_out_of_range(rank_ratio):
    origin, _, factors = problem()
    with pytest.raises(ValueError, match="`rank_ratio` must be in"):
        merge.static_params(origin, factors, 1.0, rank_ratio)


def test_static_params_refuse_factors_of_another_model():
    origin, _, factors = problem()
    origin = helpers.without(origin, helpers.DECOMPOSED[0])
    with pytest.raises(ValueError, match="only in `factors`: blocks_0/attn/in_proj/k"):
        merge.static_params(origin, factors, 1.0)


def test_init_variables_have_one_coefficient_a_task_and_tensor():
    _, _, factors = problem()
    coefficients = tree.flatten(merge.init_variables(factors, 0.3).coefficients)
    theirs = dict.fromkeys(sorted(helpers.SHAPES), jnp.full(3, 0.3, jnp.float32))
    chex.assert_trees_all_equal(coefficients, theirs)


def test_init_variables_have_one_mask_logit_a_direction():
    _, _, factors = problem()
    logits = tree.flatten(merge.init_variables(factors, 0.3, 0.5).mask_logits)
    shapes = {path: None if x is None else x.shape for path, x in logits.items()}
    none = dict.fromkeys(helpers.SHAPES)
    assert shapes == none | dict(zip(helpers.DECOMPOSED, ((3, 6), (3, 7)), strict=True))


def test_init_variables_are_float32():
    _, _, factors = problem()
    leaves = jax.tree.leaves(merge.init_variables(factors, 1.0))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("rank_ratio", (0.0, -1.0, 1.5))
def test_init_variables_refuse_a_ratio_out_of_range(rank_ratio):
    _, _, factors = problem()
    with pytest.raises(ValueError, match="`rank_ratio` must be in"):
        merge.init_variables(factors, 1.0, rank_ratio)


def test_merge_matrix_of_a_sharded_rank_axis_is_that_of_one_device():
    tasks, rows, rank, cols = 3, 9, 8, 11
    origin = helpers.matrix(0, rows, cols)
    factors = svd.decompose(jnp.asarray(helpers.matrix(1, tasks, rank, cols)))
    u = helpers.matrix(2, rows, tasks, rank)
    vt = factors.vt.reshape(tasks, rank, cols)
    coefficients, mask = helpers.matrix(3, tasks), helpers.matrix(4, tasks, rank)

    def shard(origin, coefficients, mask, u, s, vt):
        u, vt = u.reshape(rows, -1), vt.reshape(-1, cols)
        return merge.merge_matrix(origin, coefficients, mask, u, s, vt, "devices")

    whole, split = PartitionSpec(), PartitionSpec(None, "devices")
    ours = jax.jit(
        jax.shard_map(
            shard,
            mesh=Mesh(np.array(jax.devices("cpu")), ("devices",)),
            in_specs=(
                whole,
                whole,
                split,
                PartitionSpec(None, None, "devices"),
                split,
                split,
            ),
            out_specs=whole,
        )
    )(origin, coefficients, mask, u, factors.s, vt)
    theirs = merge.merge_matrix(
        *helpers.to_jax((origin, coefficients, mask, u.reshape(rows, -1))),
        factors.s,
        factors.vt,
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_merge_dense_adds_the_scaled_task_vectors():
    origin, vectors = helpers.matrix(0, 2, 3), helpers.matrix(1, 2, 2, 3)
    ours = merge.merge_dense(*helpers.to_jax((origin, np.float32([2, -1]), vectors)))
    theirs = origin + 2 * vectors[0] - vectors[1]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_merge_dense_takes_a_scalar_tensor():
    ours = merge.merge_dense(jnp.float32(1.0), jnp.array([2.0, 3.0]), jnp.ones(2))
    assert ours == 6.0


def test_hard_merged_params_equal_the_straight_through_merge():
    origin, _, factors = problem()
    variables = draw_variables(7, factors)
    mask = functools.partial(masks.straight_through, temperature=3.0)
    kept = merge.kept_directions(variables.mask_logits, 3.0)
    merged = merge.hard_merged_params(origin, factors, variables.coefficients, kept)
    expected = merge.merged_params(origin, factors, variables, mask)
    helpers.assert_close(merged, helpers.flat64(expected))


def test_hard_merged_params_are_host_arrays_and_do_not_depend_on_the_caller():
    origin, _, factors = problem()
    variables = draw_variables(7, factors)
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    one = merge.hard_merged_params(origin, factors, variables.coefficients, kept)
    assert {type(leaf) for leaf in tree.flatten(one).values()} == {np.ndarray}
    with (
        jax.default_device(jax.local_devices()[3]),
        jax.default_matmul_precision("bfloat16"),
    ):
        moved = helpers.to_jax((origin, factors, variables.coefficients))
        two = merge.hard_merged_params(*moved, kept)
    chex.assert_trees_all_equal(one, two)


def test_kept_directions_are_the_bits_of_the_straight_through_mask():
    _, _, factors = problem()
    logits = tree.without_none(draw_variables(9, factors).mask_logits)
    for path, bits in tree.flatten(merge.kept_directions(logits, 10.0)).items():
        mask = masks.straight_through(tree.flatten(logits)[path])
        assert bits.dtype == bool
        np.testing.assert_array_equal(bits, np.asarray(mask) == 1)


@pytest.mark.parametrize("missing", ["one task", "all bits", "a coefficient"])
def test_hard_merged_params_name_the_tensor_that_does_not_fit(missing):
    origin, _, factors = problem()
    variables = draw_variables(7, factors)
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    path = "blocks_0/mlp/c_proj/kernel"
    flat, scales = tree.flatten(kept), tree.flatten(variables.coefficients)
    if missing == "a coefficient":
        scales[path] = scales[path][:-1]
    else:
        flat[path] = None if missing == "all bits" else flat[path][:-1]
    with pytest.raises(ValueError, match=path):
        merge.hard_merged_params(
            origin, factors, tree.unflatten(scales), tree.unflatten(flat)
        )


def unmerged_problem():
    """As `problem`, with a tensor beside the others that is not merged."""
    origin, _, factors = problem(shapes=LINEAR)
    origin["embedding"] = helpers.matrix(3, 7, 2)
    return origin, factors | {"embedding": None}


def test_a_tensor_without_factors_stays_that_of_the_origin():
    origin, factors = unmerged_problem()
    variables = merge.init_variables(factors, 0.5)
    assert variables.coefficients["embedding"] is None
    assert variables.mask_logits["embedding"] is None
    merged = jax.jit(merge.merged_params)(origin, factors, variables)
    np.testing.assert_array_equal(merged["embedding"], origin["embedding"])
    rest = {path: factors[path] for path in LINEAR}
    alone = merge.static_params({path: origin[path] for path in LINEAR}, rest, 0.5)
    chex.assert_trees_all_equal({path: merged[path] for path in LINEAR}, alone)


def test_hard_merged_params_leave_a_tensor_without_factors_alone():
    origin, factors = unmerged_problem()
    variables = merge.init_variables(factors, 0.5, 0.4)
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    merged = merge.hard_merged_params(origin, factors, variables.coefficients, kept)
    np.testing.assert_array_equal(merged["embedding"], origin["embedding"])
    assert merged["embedding"] is not origin["embedding"]
    wrong = variables.coefficients | {"embedding": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match="'embedding'.*not merged"):
        merge.hard_merged_params(origin, factors, wrong, kept)
