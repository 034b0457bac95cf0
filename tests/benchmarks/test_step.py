"""The benchmark of the step: its options and its problems; nothing is timed."""

import json

import jax
import pytest

from adarank_jax import tree
from adarank_jax.core import svd
from benchmarks import shapes, step, timing

WRONG = (
    # arguments, message
    (["--layers", "0"], "argument --layers: must be at least 1, got '0'"),
    (["--tasks", "-3"], "argument --tasks: "),
    (["--batch", "many"], "argument --batch: must be at least 1, got 'many'"),
    (["--rank-ratio", "0"], "argument --rank-ratio: must be above 0 and at most 1"),
    (["--rank-ratio", "16%"], "must be above 0 and at most 1, got '16%'"),
    (["--shapes", "vit-b-16"], "argument --shapes: invalid choice: 'vit-b-16'"),
)
PUBLISHED = (
    # shapes, tasks, batch, GFLOP a layer
    ("vit-b-32", 8, 16, 446),
    ("roberta-base", 7, 8, 457),
)


@pytest.mark.parametrize(("name", "tasks", "batch", "gflop"), PUBLISHED)
def test_parse_begins_with_the_paper(name, tasks, batch, gflop):
    options = step.parse(["--shapes", name])
    assert (options.tasks, options.batch, options.layers) == (tasks, batch, 2)


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_parse_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        step.parse(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_make_case_has_the_shapes_of_the_encoder(name):
    case = shapes.make_case(name, layers=1, tasks=2, batch=3, tokens=5)
    example = jax.tree.map(lambda x: x[0], case.inputs)
    expected = jax.eval_shape(case.module.init, jax.random.key(0), example)["params"]
    tree.check_same(expected, tree.unflatten(case.origin), ("expected", "origin"))
    for path, leaf in case.factors.items():
        if svd.is_factors(leaf):
            product = svd.reconstruct(leaf)
            assert product.shape == (2, *case.origin[path].shape)
        elif leaf is not None:
            assert leaf.shape == (2, *case.origin[path].shape)
    left = [path for path, leaf in case.factors.items() if leaf is None]
    assert bool(left) == (name == "roberta-base")


@pytest.mark.parametrize(("name", "tasks", "batch", "gflop"), PUBLISHED)
def test_useful_flops_counts_merge_gradient_and_encoder(name, tasks, batch, gflop):
    one, two = (
        shapes.useful_flops(shapes.make_case(name, layers, 1, 1, 128))
        for layers in (1, 2)
    )
    tokens = 50 if name == "vit-b-32" else 128
    matrices = 12 * 768**2
    assert two - one == 2 * 2 * matrices * 768 + 3 * 2 * matrices * tokens
    # In the last layer only keys and values are those of all tokens.
    assert two - 2 * one == 3 * 2 * 10 * 768**2 * (tokens - 1)
    published = 4 * matrices * 768 * tasks + 6 * matrices * tokens * tasks * batch
    assert round(published / 1e9) == gflop


def test_useful_flops_leaves_out_the_merge_of_what_masks_drop():
    full, less = (
        shapes.useful_flops(shapes.make_case("roberta-base", 1, 1, 1, 8, ratio))
        for ratio in (1.0, 0.25)
    )
    assert full - less == 2 * 12 * 768**2 * (768 - 192)


def test_measure_refuses_two_kinds_of_devices(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(RuntimeError, match="JAX runs on 'gpu', .* JAX_PLATFORMS=cpu"):
        step.measure(step.parse([]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rank_ratio"),
    [("vit-b-32", "1.0"), ("vit-b-32", "0.16"), ("roberta-base", "0.16")],
)
def test_both_steps_have_the_same_losses_and_are_timed(
    name, rank_ratio, capsys, tmp_path
):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    sizes = "--layers 1 --tasks 2 --batch 8 --tokens 8 --repeats 1".split()
    sizes += ["--rank-ratio", rank_ratio]
    step.main(["--shapes", name, *sizes, "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["versions"]["torch"] == torch.__version__
    assert result["versions"]["jax"] == jax.__version__
    assert result["torch_threads"] == torch.get_num_threads()
    assert set(result["first_losses"]) == {"ours", "theirs"}
    assert all(len(values) == 1 for values in result["seconds"].values())
    assert f"`{result['command']}`" in capsys.readouterr().out


def test_alternate_calls_in_turn():
    called = []
    runs = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    seconds = timing.alternate(runs, 3)
    assert called == [*"aa", *"bb", *"bb", *"aa", *"aa", *"bb"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_median_ratio_is_that_of_pairs():
    assert timing.median_ratio([2.0, 30.0, 9.0], [1.0, 10.0, 2.0]) == 3.0


def test_cells_have_what_a_row_tells():
    result = {
        "median_seconds": {"ours": 2.0, "theirs": 5.0},
        "ratio": 2.5,
        "share_of_gemm": 0.655,
        "gemm_gflops": 240.0,
    }
    assert step.cells(result) == ("5.00 s", "2.00 s", "2.50", "66 % of 240 GFLOP/s")
