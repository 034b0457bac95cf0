import functools
import json

import chex
import hypothesis
import numpy as np
import pytest
import safetensors
from hypothesis import strategies
from safetensors.numpy import save_file

from adarank_jax import tree
from adarank_jax.checkpoints import recipe
from adarank_jax.core import merge, svd, task_vectors
from adarank_jax.core.merge import Variables
from tests import helpers

DIGEST = "0" * 63 + "f"
SETTINGS = recipe.Settings(
    tasks=("mnist", "naïve/数字", "con"),
    origin="average",
    is_decorrelated=False,
    temperature=10.0,
    family="clip",
    options={"qkv": "fused", "open_clip": False},
    base=DIGEST,
    experts=(DIGEST,) * 3,
    merged=DIGEST,
    config={"activation": "gelu", "width": 8},
    rank_ratio=1.0,
    dtype=None,
    max_shard_size="5GB",
    weights=DIGEST,
    environment={"cores": 2, "packages": {"jax": "0.10.2"}},
    svd_backend="gram",
)


def draw(seed=0, rank=6):
    """Draws variables of a decomposed matrix and a dense tensor."""
    return Variables(
        {"bias": helpers.matrix([seed, 0], 3), "w": helpers.matrix([seed, 1], 3)},
        {"bias": None, "w": helpers.matrix([seed, 2], 3, rank)},
    )


@pytest.fixture
def file(tmp_path):
    recipe.write_recipe(tmp_path / "recipe.safetensors", draw(), SETTINGS)
    return tmp_path / "recipe.safetensors"


@hypothesis.given(strategies.integers(0, 1000), strategies.integers(1, 40))
def test_read_undoes_write_bit_for_bit(tmp_path_factory, seed, rank):
    path, variables = tmp_path_factory.mktemp("r") / "r.safetensors", draw(seed, rank)
    recipe.write_recipe(path, variables, SETTINGS)
    found = recipe.read_recipe(path)
    assert found.settings == SETTINGS
    chex.assert_trees_all_equal(found.coefficients, variables.coefficients)
    assert found.kept["bias"] is None
    expected = merge.kept_directions(variables.mask_logits, 10.0)["w"]
    np.testing.assert_array_equal(found.kept["w"], expected)
    assert found.kept["w"].dtype == bool


def test_recipe_without_masks_is_adamerging(tmp_path):
    variables = Variables({"w": helpers.matrix(0, 3)}, {"w": None})
    recipe.write_recipe(tmp_path / "r.safetensors", variables, SETTINGS)
    assert recipe.read_recipe(tmp_path / "r.safetensors").kept == {"w": None}


def test_recipe_takes_one_bit_a_direction(tmp_path):
    logits = {"w": helpers.matrix(0, 3, 8000)}
    variables = Variables({"w": helpers.matrix(1, 3)}, logits)
    recipe.write_recipe(tmp_path / "r.safetensors", variables, SETTINGS)
    size = (tmp_path / "r.safetensors").stat().st_size
    assert 3000 < size < 3000 + 2000


def test_recipe_bits_and_coefficients_merge_to_the_same_weights(file):
    origin, finetuned = helpers.task_set(shapes={"bias": (4,), "w": (9, 6)})
    variables, found = draw(), recipe.read_recipe(file)
    vectors = task_vectors.task_vectors(origin, finetuned)
    factors = svd.decompose_tree(vectors, lambda path, leaf: leaf.ndim == 2)
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    hard = functools.partial(merge.hard_merged_params, origin, factors)
    ours = hard(found.coefficients, found.kept)
    chex.assert_trees_all_equal(ours, hard(variables.coefficients, kept))
    assert recipe.digest(ours) != recipe.digest(origin)


def test_digest_depends_on_names_shapes_and_every_bit():
    start = {"a": {"w": helpers.matrix(0, 2, 3)}, "b": helpers.matrix(1, 4)}
    others = [
        {"a": {"v": start["a"]["w"]}, "b": start["b"]},
        {"a": {"w": start["a"]["w"].reshape(3, 2)}, "b": start["b"]},
        {"a": start["a"], "b": np.nextafter(start["b"], np.float32(9))},
        {"a": start["a"], "b": -start["b"]},
        helpers.transposed(start),
    ]
    digests = [recipe.digest(params) for params in (start, *others)]
    assert len(set(digests)) == len(digests)
    assert recipe.digest(helpers.to_jax(start)) == digests[0]
    assert recipe.digest(dict(reversed(start.items()))) == digests[0]


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_read_refuses_a_truncated_file(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"recipe\.safetensors.*no recipe"):
        recipe.read_recipe(file)


def test_read_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        recipe.read_recipe(tmp_path / "gone")


def rewritten(file, change):
    """Writes the file again with another document or other arrays."""
    with safetensors.safe_open(file, framework="np") as opened:
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        (key,) = opened.metadata()
        document = json.loads(opened.metadata()[key])
    change(arrays, document)
    save_file(arrays, file, metadata={key: json.dumps(document)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, d: d.update(version=4), "version 4"),
        (lambda a, d: d["settings"].update(origin="cart"), "'cart'"),
        (lambda a, d: d["settings"]["options"].update(qkv="both"), "'both'"),
        (lambda a, d: d["settings"]["options"].pop("open_clip"), "'open_clip'"),
        (lambda a, d: d["settings"]["options"].update(more=1), "'more', unknown"),
        (lambda a, d: d["settings"].update(options=[]), "an object"),
        (lambda a, d: d["settings"].update(family="t5"), "'t5'"),
        (lambda a, d: d["settings"].update(family=["bert"]), r"\['bert'\]"),
        (lambda a, d: d["settings"].update(family="bert"), "'qkv', unknown"),
        (lambda a, d: d["settings"].update(unmerged=["w"]), r"\['w'\].*not merged"),
        (lambda a, d: d["settings"].update(unmerged=[1]), "paths"),
        (lambda a, d: d["settings"].update(svd_backend="mkl"), "'mkl'"),
        (lambda a, d: d["settings"].update(temperature="hot"), "'hot'"),
        (lambda a, d: d["settings"].update(tasks=[1, 2, 3]), "text"),
        (lambda a, d: d["settings"].update(experts=[DIGEST]), "one digest a task"),
        (lambda a, d: d["settings"].update(merged="../../x"), "SHA-256"),
        (lambda a, d: d["settings"].update(extra=1), "no recipe"),
        (lambda a, d: d["ranks"].update(w=99), r"kept/w.*\(38,\)"),
        (lambda a, d: d["ranks"].update(w=-6), "kept/w"),
        (lambda a, d: d["ranks"].update(w="6"), "kept/w"),
        (lambda a, d: d.update(ranks={}), "belongs to no recipe"),
        (lambda a, d: a.pop("kept/w"), "not whole"),
        (lambda a, d: a.pop("coefficients/w"), "not whole"),
        (lambda a, d: a.update({"coefficients/w": np.ones(3)}), "float64"),
        (lambda a, d: a.update({"other": np.ones(3)}), "'other'"),
        (
            lambda a, d: a.update({"coefficients/w": np.float32([1, np.nan, 1])}),
            "w: 1 of 3",
        ),
    ],
)
def test_read_refuses_what_no_export_wrote(file, change, message):
    rewritten(file, change)
    with pytest.raises(ValueError, match=message):
        recipe.read_recipe(file)


def to_version_2(arrays, document):
    """Turns a document to what version 2 wrote, which knew CLIP only."""
    document["version"] = 2
    settings = document["settings"]
    del settings["family"], settings["unmerged"]
    settings |= settings.pop("options")


def test_recipe_of_version_2_is_read(file):
    expected = recipe.read_recipe(file)
    rewritten(file, to_version_2)
    found = recipe.read_recipe(file)
    assert found.settings == SETTINGS
    chex.assert_trees_all_equal(found[:2], expected[:2])


def test_tensors_that_were_not_merged_come_back_as_none(tmp_path):
    variables = draw()
    none = {"table": {"embedding": None}}
    settings = SETTINGS._replace(
        family="roberta", options={}, unmerged=("table/embedding",)
    )
    wide = Variables(variables.coefficients | none, variables.mask_logits | none)
    for given in (variables, wide):
        recipe.write_recipe(tmp_path / "r.safetensors", given, settings)
        found = recipe.read_recipe(tmp_path / "r.safetensors")
        assert found.settings == settings
        assert found.coefficients["table"] == found.kept["table"] == {"embedding": None}
        np.testing.assert_array_equal(
            found.coefficients["w"], variables.coefficients["w"]
        )


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        (draw(), SETTINGS._replace(temperature=0.0), "`temperature`"),
        (draw(), SETTINGS._replace(tasks=("a", "a", "b")), "different names"),
        (draw(), SETTINGS._replace(base=""), "`base`"),
        (draw(), SETTINGS._replace(unmerged=("w",)), "`unmerged`.*'w'"),
        (
            draw()._replace(mask_logits={"bias": None, "w": np.full((3, 2), np.nan)}),
            SETTINGS,
            "logits.*\n  w: 6 of 6",
        ),
    ],
)
def test_write_refuses_before_a_file_is_made(tmp_path, variables, settings, message):
    with pytest.raises(ValueError, match=message):
        recipe.write_recipe(tmp_path / "r.safetensors", variables, settings)
    assert not list(tmp_path.iterdir())


def test_recipe_holds_no_parameter_tree_of_another_file(tmp_path):
    save_file(tree.flatten(helpers.params(0)), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"m\.safetensors.*no recipe"):
        recipe.read_recipe(tmp_path / "m.safetensors")


def test_recipe_without_a_backend_is_of_lapack(file):
    assert recipe.read_recipe(file).settings.svd_backend == "gram"
    rewritten(file, lambda arrays, document: document["settings"].pop("svd_backend"))
    assert recipe.read_recipe(file).settings.svd_backend == "host"
