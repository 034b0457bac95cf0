"""The recorded trajectory of the authors' code, through the command line.

The recorded weights are written as two libraries would write them; the same 40 steps
then go through readers, factors, adaptation and the merge on the host.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from adarank_jax import tree
from adarank_jax.checkpoints import clip, files, head_files
from experiments import clip_suite, yaml_config
from experiments.image_config import ImageMergeConfig
from tests import helpers, reference

ROOT = pathlib.Path(__file__).parents[1]
NUM_STEPS, BATCH_SIZE = 40, 4
METHODS = {
    "ta": "{name: adarank, origin: task_arithmetic, coefficient: 0.3, rank_ratio: 1.0}",
    "cart": "{name: adarank, origin: cart, coefficient: 1.2, rank_ratio: 0.16}",
}


class Finished(NamedTuple):
    """What one command left in its run folder."""

    metrics: list[dict[str, Any]]
    variables: dict[str, Any]
    merged: dict[str, Any]
    manifest: dict[str, Any]
    export: pathlib.Path


def write_open_clip(root):
    """Writes the recorded names as they are: one matrix of query, key and value."""
    model = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 16,
            "patch_size": 8,
            "width": 32,
            "head_width": 8,
            "layers": 2,
        },
        "text_cfg": {},
    }
    base = root / "base"
    base.mkdir()
    (base / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    save_file(weights("pretrained"), base / "open_clip_model.safetensors")
    for task in reference.TASKS:
        save_file(weights(f"finetuned/{task}"), root / f"{task}.safetensors")
    return "base", "{task}.safetensors"


def write_hugging_face(root):
    """Writes `CLIPVisionModelWithProjection`: query, key and value are three."""
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 128,
        "projection_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    names = {"base": "pretrained"}
    names |= {task: f"finetuned/{task}" for task in reference.TASKS}
    for folder, prefix in names.items():
        (root / folder).mkdir()
        (root / folder / "config.json").write_text(json.dumps(config))
        state = hugging_face(weights(prefix))
        save_file(state, root / folder / "model.safetensors", {"format": "pt"})
    return "base", "{task}"


LAYOUTS = {"open_clip": write_open_clip, "hugging_face": write_hugging_face}


def weights(prefix):
    """Returns one recorded model by its own names."""
    arrays, start = reference.recording(), f"{prefix}/"
    return {k.removeprefix(start): arrays[k] for k in arrays if k.startswith(start)}


def hugging_face(state):
    """Renames and splits by hand, so that no table of the package is its own judge."""
    renamed = {}
    for name, array in state.items():
        for theirs, ours in HUGGING_FACE.items():
            name = name.replace(theirs, ours)
        if ".in_proj_" in name:
            parts = np.split(array, 3)
            for part, values in zip("qkv", parts, strict=True):
                key = name.replace(".in_proj_", f".{part}_proj.")
                renamed[key] = np.ascontiguousarray(values)
        elif name == "visual_projection.weight":
            renamed[name] = np.ascontiguousarray(array.T)
        else:
            renamed[name] = array
    return renamed


HUGGING_FACE = {
    "visual.proj": "visual_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.": ".self_attn.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


def write_configuration(root, layout, case):
    """Writes weights, heads, images and the file that merges them."""
    base, expert = LAYOUTS[layout](root)
    lines = [f"base: {root / base}", "experts:"]
    for task in reference.TASKS:
        head = {"weight": reference.recording()[f"head/{task}"]}
        save_file(head, root / f"head_{task}.safetensors")
        steps = reference.recording()[f"images/{task}"].transpose(0, 1, 3, 4, 2)
        np.savez(root / f"{task}.npz", images=steps.reshape(-1, *steps.shape[2:]))
        lines += [
            f"  {task}:",
            f"    model: {root / expert.format(task=task)}",
            f"    head: {root}/head_{task}.safetensors",
            f"    data: {root}/{task}.npz",
        ]
    lines += [
        f"method: {METHODS[case]}",
        "compare: []",
        "shuffle: false",
        "offline: true",
        "adaptation:",
        f"  num_steps: {NUM_STEPS}",
        f"  batch_size: {BATCH_SIZE}",
        f"  learning_rate: {reference.LEARNING_RATE}",
        "  temperature: 10",
    ]
    (root / "my_merge.yaml").write_text("\n".join(lines) + "\n")


def check_images(root, images):
    """Checks a run with other images of the first task."""
    write_configuration(root, "open_clip", "ta")
    np.savez(root / "a.npz", images=images)
    config = yaml_config.read_config(ImageMergeConfig, root / "my_merge.yaml", [])
    return clip_suite.check(config)


def test_preprocessed_images_of_another_size_are_refused(tmp_path):
    found = check_images(tmp_path, np.ones((2, 16, 8, 3)))
    (problem,) = found.problems
    assert "experts.a.data" in problem.where
    assert "(16, 8, 3)" in str(problem)
    assert "takes (16, 16, 3)" in str(problem)


def test_images_that_were_only_scaled_are_warned_of(tmp_path):
    found = check_images(tmp_path, np.random.default_rng(0).random((20, 16, 16, 3)))
    assert not found.problems
    (warning,) = found.warnings
    assert "experts.a.data" in warning.where
    assert "only scaled" in str(warning)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs one configuration, at most once, on the one device of another process."""
    cache = tmp_path_factory.mktemp("compiled")  # all of them run the same programs
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    @functools.cache
    def run(layout, case):
        root = tmp_path_factory.mktemp(f"{layout}-{case}")
        write_configuration(root, layout, case)
        command = [sys.executable, "-m", "experiments.run_vit", f"{root}/my_merge.yaml"]
        shown = subprocess.run(
            [*command, "--run-dir", f"{root}/run"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert shown.returncode == 0, shown.stderr
        assert "warning W" not in shown.stderr
        return read_run(root / "run")

    return run


def read_run(folder):
    """Reads what a run left."""
    (adapted,) = (folder / "adapted").iterdir()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return Finished(
        [json.loads(line) for line in lines],
        files.read(adapted / "variables.safetensors"),
        files.read(folder / "merged.safetensors"),
        json.loads((folder / "manifest.json").read_text()),
        folder / "export",
    )


on_every_run = pytest.mark.parametrize(
    ("layout", "case"),
    [
        ("open_clip", "ta"),
        ("hugging_face", "cart"),
        pytest.param("hugging_face", "ta", marks=pytest.mark.slow),
        pytest.param("open_clip", "cart", marks=pytest.mark.slow),
    ],
)


@on_every_run
def test_command_has_the_recorded_entropies(finished, layout, case):
    rows = finished(layout, case).metrics
    assert [row["step"] for row in rows] == [*range(NUM_STEPS)]
    ours = [[row["entropy"][task] for task in reference.TASKS] for row in rows]
    theirs = reference.recording()[f"{case}/entropy"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@on_every_run
def test_command_ends_with_the_recorded_mask_bits(finished, layout, case):
    logits = tree.flatten(finished(layout, case).variables["mask_logits"])
    theirs = reference.masks(case, "mask_logits_end")
    assert logits.keys() == theirs.keys()
    equal = [(logits[path] > 0) == (theirs[path] > 0) for path in theirs]
    assert np.mean(np.concatenate(equal, axis=None)) >= 0.99


@on_every_run
def test_command_ends_with_the_recorded_coefficients(finished, layout, case):
    ours = reference.table(case, finished(layout, case).variables["coefficients"])
    theirs = reference.recording()[f"{case}/coefficients_end"]
    assert helpers.relative_error(ours, theirs) < 1e-3


@on_every_run
def test_command_ends_with_the_recorded_weights(finished, layout, case):
    theirs = reference.params(reference.recording(), f"{case}/merged_end")
    merged = finished(layout, case).merged
    helpers.assert_close(merged, helpers.flat64(theirs), 1e-3)


@on_every_run
def test_export_of_the_command_has_the_recorded_weights(finished, layout, case):
    run = finished(layout, case)
    exported = clip.read_clip(str(run.export))
    theirs = reference.params(reference.recording(), f"{case}/merged_end")
    helpers.assert_close(exported.vision, helpers.flat64(theirs), 1e-3)
    same = jax.tree.map(np.array_equal, exported.vision, run.merged)
    assert all(jax.tree.leaves(same))
    for task in reference.TASKS:
        head = head_files.read_head(run.export / "heads" / f"{task}.safetensors", 24)
        expected = reference.recording()[f"head/{task}"]
        np.testing.assert_allclose(head.weight, expected, rtol=1e-5, atol=1e-5)


def test_both_layouts_are_read_to_the_same_bits(finished):
    one = finished("open_clip", "ta").manifest
    other = finished("hugging_face", "cart").manifest
    assert (one["base"]["layout"], other["base"]["layout"]) == tuple(LAYOUTS)
    assert one["base"]["sha256"] == other["base"]["sha256"]
    for task in reference.TASKS:
        left, right = one["experts"][task], other["experts"][task]
        assert left["sha256"] == right["sha256"]
        assert left["config"] == right["config"]
        assert left["sha256"] != one["base"]["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("case", METHODS)
def test_both_layouts_merge_to_the_same_bits(finished, case):
    one, other = (tree.flatten(finished(x, case).merged) for x in LAYOUTS)
    assert one.keys() == other.keys()
    for path in one:
        assert one[path].dtype == other[path].dtype == np.float32
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)
