"""Ways to decompose: they agree, and what does not converge goes to LAPACK."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adarank_jax.core import svd, svd_backends
from tests import helpers

STACKS = {
    "a": helpers.matrix(0, 3, 12, 7),
    "b": helpers.matrix(1, 2, 5, 9),
    "c": helpers.matrix(2, 3, 12, 7),
}
BACKENDS = ("gram", "host", "device")
every = lambda path, leaf: True


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_rebuild_the_task_vectors(backend):
    factors = svd.decompose_tree(STACKS, every, backend)
    for name, stack in STACKS.items():
        rebuilt = svd.reconstruct(factors[name])
        np.testing.assert_allclose(rebuilt, stack, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_backends_agree_in_values_and_directions(backend):
    ours, theirs = (svd.decompose_tree(STACKS, every, x) for x in ("gram", backend))
    for name in STACKS:
        u, s, vt = ours[name]
        np.testing.assert_allclose(s, theirs[name].s, rtol=1e-5)
        for one, two in ((u, theirs[name].u), (vt.T, theirs[name].vt.T)):
            np.testing.assert_allclose(abs(np.sum(one * two, axis=0)), 1.0, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_factors_do_not_depend_on_other_matrices_or_their_order(backend):
    whole = svd.decompose_tree(STACKS, every, backend)
    turned = {f"z{name}": STACKS[name] for name in reversed(STACKS)}
    alone = {name: svd.decompose(STACKS[name], backend) for name in STACKS}
    found = svd.decompose_tree(turned, every, backend)
    chex.assert_trees_all_equal(whole, alone)
    chex.assert_trees_all_equal(whole, {name: found[f"z{name}"] for name in STACKS})


def test_gram_factors_permute_with_the_tasks():
    order = [2, 0, 1]
    straight = svd.decompose(STACKS["a"])
    turned = svd.decompose(STACKS["a"][order])
    np.testing.assert_array_equal(turned.s, straight.s[order])
    u = straight.u.reshape(12, 3, 7)[:, order].reshape(12, 21)
    np.testing.assert_array_equal(turned.u, u)


def test_decompose_takes_jax_arrays():
    ours = svd.decompose(jnp.asarray(STACKS["b"]))
    chex.assert_trees_all_equal(ours, svd.decompose(STACKS["b"]))


def test_report_counts_every_matrix():
    reports = []
    svd.decompose_tree(STACKS, every, report=lambda *numbers: reports.append(numbers))
    assert reports == [(i, 8) for i in range(1, 9)]


def test_report_may_stop_the_decomposition():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        svd.decompose_tree(STACKS, every, report=stop)


def not_converged(matrix):
    raise np.linalg.LinAlgError("did not converge")


def not_finite(matrix):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return u * np.nan, s, vt


@pytest.mark.parametrize("route", (not_converged, not_finite))
@pytest.mark.parametrize("backend", ("gram", "device"))
def test_what_does_not_converge_goes_to_lapack(backend, route, monkeypatch):
    monkeypatch.setitem(svd_backends._ROUTES, backend, route)
    stacks = {"blocks/kernel": STACKS["a"][:1]}
    message = f"'{backend}' did not converge for 'blocks/kernel', task 0; decomposed"
    with pytest.warns(RuntimeWarning, match=message):
        found = svd_backends.decompose_stacks(stacks, backend)
    theirs = svd_backends.decompose_stacks(stacks, "host")
    chex.assert_trees_all_equal(found, theirs)


def test_a_matrix_that_nothing_decomposes_is_named(monkeypatch):
    monkeypatch.setitem(svd_backends._ROUTES, "gram", not_converged)
    monkeypatch.setattr(svd_backends, "_host", not_finite)
    with pytest.raises(ValueError, match="E228 .*'w', task 0, does not converge"):
        svd_backends.decompose_stacks({"w": STACKS["a"]}, "gram")


def test_decompose_refuses_an_unknown_backend():
    decompose_stacks = inspect.unwrap(svd_backends.decompose_stacks)  # without types
    with pytest.raises(ValueError, match="`backend` must be one of .* got 'polar'"):
        decompose_stacks(STACKS, "polar")


def test_device_takes_the_polar_route_on_cuda_for_no_wide_matrix(monkeypatch):
    asked = []

    def recorded(matrix, *, full_matrices, algorithm):
        asked.append((matrix.shape, algorithm))
        return jnp.linalg.svd(matrix, full_matrices=full_matrices)

    class Client:
        platform_version = "PJRT C API\ncuda 12090"

    class Device:
        client = Client()

    cpu = jax.local_devices()[0]
    monkeypatch.setattr(jax.lax.linalg, "svd", recorded)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    monkeypatch.setattr(jax, "device_put", lambda x, device: jnp.asarray(x, device=cpu))
    u, _, vt = svd_backends._device(STACKS["b"][0])
    assert asked == [((9, 5), jax.lax.linalg.SvdAlgorithm.POLAR)]
    assert (u.shape, vt.shape) == ((5, 5), (5, 9))
