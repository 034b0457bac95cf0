import shutil
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adarank_jax import errors, tree
from adarank_jax.checkpoints import clip, files, folders, recipe
from adarank_jax.core import merge
from adarank_jax.models import clip_vision
from experiments import rebuild, starts
from experiments.merge_config import Method
from tests import helpers
from tests.checkpoints import tiny_folders

CASES = ("cart-fused", "tsv_m-split")

MAKE = """
import pathlib, sys
import numpy as np
from adarank_jax.checkpoints import clip, export, recipe
from adarank_jax.core import merge, svd
from adarank_jax.core.merge import Variables
from adarank_jax.models import clip_vision
from adarank_jax import tree
from experiments import rebuild, starts
from experiments.merge_config import Method

DTYPES = {"tsv_m": "bfloat16"}
folder = pathlib.Path(sys.argv[1])
for case in sys.argv[2:]:
    name, qkv = case.split("-")
    base = clip.read_clip(str(folder / "base"), qkv)
    experts = [clip.read_clip(str(folder / n), qkv, base) for n in ("a", "b", "c")]
    visions = [expert.vision for expert in experts]
    start = starts.get(Method(name="adarank", origin=name))
    backend = "host" if name == "cart" else "gram"
    origin, factors = starts.build(
        start,
        base.vision,
        visions,
        clip_vision.is_decomposed,
        folder / "cache" / qkv,
        backend=backend,
    )
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    variables = Variables(
        tree.map_with_path(lambda _, leaf: draw(3), origin),
        tree.map_with_path(
            lambda _, leaf: draw(*leaf.s.shape) if svd.is_factors(leaf) else None,
            factors,
        ),
    )
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    merged = merge.hard_merged_params(origin, factors, variables.coefficients, kept)
    settings = recipe.Settings(
        tasks=("mnist", "svhn", "数字=x"),
        origin="average" if start.is_centred else "pretrained",
        is_decorrelated=start.is_decorrelated,
        temperature=10.0,
        family="clip",
        options={"qkv": qkv, "open_clip": name == "tsv_m"},
        base=recipe.digest(base.vision),
        experts=tuple(map(recipe.digest, visions)),
        merged=recipe.digest(merged),
        config=rebuild.identity(base),
        rank_ratio=1.0,
        svd_backend=backend,
        dtype=DTYPES.get(name),
        max_shard_size="5GB",
        weights=export.digest_tensors(export.weights(base, merged, DTYPES.get(name))),
        environment=rebuild.environment(),
    )
    out = folder / case
    recipe.write_recipe(out.with_suffix(".safetensors"), variables, settings)
    export.write_model(
        out, base, merged, with_open_clip=name == "tsv_m", dtype=settings.dtype
    )
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Merges in a process of its own; only files are left of it."""
    folder = tmp_path_factory.mktemp("made")
    tensors = tiny_folders.state("hugging_face")
    tiny_folders.write(folder / "base", "model", tensors)
    for seed, name in enumerate("abc"):
        tiny_folders.write(folder / name, "vision", tiny_folders.moved(tensors, seed))
    run("-c", MAKE, folder, *CASES)
    return folder


def run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def options(made, name, out, **changes):
    experts = (f"svhn={made / 'b'}", f"数字=x={made / 'c'}", f"mnist={made / 'a'}")
    defaults = {
        "recipe": made / f"{name}.safetensors",
        "base": str(made / "base"),
        "experts": experts,
        "out": out,
        "offline": True,
    }
    return rebuild.Config(**(defaults | changes))


@pytest.mark.parametrize("name", CASES)
def test_rebuild_in_a_fresh_process_gives_the_same_bits(made, tmp_path, name):
    config = options(made, name, tmp_path / "out")
    sources = ("--recipe", config.recipe, "--base", config.base, "--offline")
    targets = ("--experts", *config.experts, "--out", config.out)
    done = run("-m", "experiments.rebuild", *sources, *targets)
    assert "bit for bit" in done.stderr
    ours, theirs = folders.read_sums(config.out), folders.read_sums(made / name)
    written = {file for file in theirs if file.endswith(("safetensors", ".json"))}
    assert ("open_clip_model.safetensors" in written) == name.startswith("tsv_m")
    written -= {folders.MARK}
    assert {n: ours[n] for n in written} == {n: theirs[n] for n in written}
    base = files.digest(made / "base" / "model.safetensors")
    assert ours["model.safetensors"] != base


def test_recipe_is_small(made):
    weights = (made / "cart-fused" / "model.safetensors").stat().st_size
    assert (made / "cart-fused.safetensors").stat().st_size < weights / 20


@pytest.mark.parametrize("which", ["base", "a"])
def test_other_weights_are_named(made, tmp_path, which):
    other = tiny_folders.moved(tiny_folders.state("hugging_face"), 9, 0.001)
    tiny_folders.write(tmp_path / "other", "model", other)
    changes = {"base": str(tmp_path / "other")}
    if which == "a":
        experts = options(made, "cart-fused", None).experts
        changes = {"experts": (*experts[:2], f"mnist={tmp_path / 'other'}")}
    with pytest.raises(ValueError, match="made from other weights") as caught:
        rebuild.main(options(made, "cart-fused", tmp_path / "out", **changes))
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 1
    assert ("the base" if which == "base" else "the expert 'mnist'") in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_same_weights_with_another_activation_are_refused(made, tmp_path):
    shutil.copytree(made / "base", tmp_path / "base")
    file = tmp_path / "base" / "config.json"
    file.write_text(file.read_text().replace("quick_gelu", "gelu"))
    changes = {"base": str(tmp_path / "base")}
    message = "activation: 'gelu' here, 'quick_gelu' in the recipe"
    with pytest.raises(ValueError, match=message):
        rebuild.check_config(
            recipe.read_recipe(made / "cart-fused.safetensors"),
            clip.read_clip(changes["base"]),
        )
    assert not (tmp_path / "out").exists()


def test_only_what_was_compared_is_called_the_same(made, tmp_path, capsys):
    shutil.copytree(made / "base", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["text_projection.weight"] = tensors["text_projection.weight"] + 1
    save_file(tensors, file)
    changes = {"base": str(tmp_path / "base")}
    rebuild.main(options(made, "cart-fused", tmp_path / "out", **changes))
    assert "but other tensors" in capsys.readouterr().err


def test_experts_in_each_others_place_are_noticed(made, tmp_path):
    experts = (f"mnist={made / 'b'}", f"svhn={made / 'a'}", f"数字=x={made / 'c'}")
    with pytest.raises(ValueError, match=r"(?s)'mnist'.*'svhn'"):
        rebuild.main(options(made, "cart-fused", tmp_path / "o", experts=experts))


def test_other_bits_are_an_error_unless_accepted(made, tmp_path, monkeypatch):
    def rounded(*arguments):
        merged = merge.hard_merged_params(*arguments)
        return tree.map_with_path(lambda _, x: np.nextafter(x, np.float32(9)), merged)

    moved = type("moved", (), {"hard_merged_params": staticmethod(rounded)})
    monkeypatch.setattr(rebuild, "merge", moved)
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    config = options(made, "cart-fused", tmp_path / "out")
    with pytest.raises(errors.NumericsError, match=r"(?s)OMP_NUM_THREADS.*--accept"):
        rebuild.main(config)
    assert not config.out.exists()
    rebuild.main(options(made, "cart-fused", config.out, accept_rounding=True))
    ours = clip.read_clip(str(config.out)).vision
    theirs = clip.read_clip(str(made / "cart-fused")).vision
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_foreign_folder_is_refused_before_anything_is_read(made, tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.setattr(clip, "read_clip", None)
    with pytest.raises(OSError, match="is not replaced"):
        rebuild.main(options(made, "cart-fused", tmp_path))


@pytest.mark.parametrize(
    ("experts", "error", "message"),
    [
        (("mnist",), ValueError, "task=source"),
        (("mnist=",), ValueError, "task=source"),
        (("mnits=a",), errors.UsageError, "did you mean 'mnist'"),
        (("mnist=a", "mnist=b"), ValueError, "twice"),
        (("mnist=a",), ValueError, "'svhn'"),
    ],
)
def test_experts_must_match_the_tasks_of_the_recipe(experts, error, message):
    with pytest.raises(error, match=message):
        rebuild.match_experts(experts, ("mnist", "svhn"))


def settings_of(start):
    digest = "0" * 64
    return recipe.Settings(
        tasks=("a", "b", "c"),
        origin="average" if start.is_centred else "pretrained",
        is_decorrelated=start.is_decorrelated,
        temperature=10.0,
        family="clip",
        options={"qkv": "fused", "open_clip": False},
        base=digest,
        experts=(digest,) * 3,
        merged=digest,
        config={"activation": "gelu", "width": 8},
        rank_ratio=start.rank_ratio,
        svd_backend="gram",
        dtype=None,
        max_shard_size="5GB",
        weights=digest,
        environment={},
    )


@pytest.mark.parametrize("name", starts.STARTS)
def test_rebuild_is_the_computation_of_a_run(name, tmp_path):
    pretrained, finetuned = helpers.task_set()
    start = starts.get(Method(name="adarank", origin=name))
    origin, factors = starts.build(
        start, pretrained, finetuned, helpers.is_decomposed, tmp_path
    )
    variables = merge.init_variables(factors, 0.7, 0.5)
    settings = settings_of(start)
    recipe.write_recipe(tmp_path / "r.safetensors", variables, settings)
    found = recipe.read_recipe(tmp_path / "r.safetensors")
    ours = rebuild.rebuild(found, jax.tree.map(np.asarray, pretrained), finetuned)
    kept = merge.kept_directions(variables.mask_logits, 10.0)
    theirs = merge.hard_merged_params(origin, factors, variables.coefficients, kept)
    chex.assert_trees_all_equal(ours, theirs)


@pytest.mark.parametrize("name", starts.STARTS)
def test_rebuild_without_masks_is_the_computation_of_adamerging(name, tmp_path):
    shapes = {"b/mlp/w": (9, 6), "bias": (4,), "w": (5, 3)}
    pretrained, finetuned = helpers.task_set(shapes=shapes)
    models = (pretrained, finetuned, clip_vision.is_decomposed)
    start = starts.get(Method(name="adamerging", origin=name, rank_ratio=0.5))
    origin, updates = starts.build_dense(start, *models, tmp_path)
    variables = merge.init_variables(updates, 0.7, start.rank_ratio)
    path, settings = tmp_path / "r.safetensors", settings_of(start)
    recipe.write_recipe(path, variables._replace(mask_logits={}), settings)
    found = recipe.read_recipe(path)
    ours = rebuild.rebuild(found, jax.tree.map(np.asarray, pretrained), finetuned)
    nothing = jax.tree.map(lambda _: None, found.coefficients)
    whole = (origin, updates, variables.coefficients)
    chex.assert_trees_all_equal(ours, merge.hard_merged_params(*whole, nothing))
    full = found._replace(settings=found.settings._replace(rank_ratio=1.0))
    other = rebuild.rebuild(full, jax.tree.map(np.asarray, pretrained), finetuned)
    assert recipe.digest(other) != recipe.digest(ours)


def test_environment_holds_no_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret123")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    found = rebuild.environment()
    assert found["variables"]["OPENBLAS_NUM_THREADS"] == "2"
    assert "hf_secret123" not in str(found)
