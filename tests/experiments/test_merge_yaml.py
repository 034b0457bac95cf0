"""A CLIP family as the Hub would hold it, from `--plan` to the exported folder."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

from adarank_jax import tree
from adarank_jax.checkpoints import clip, files, head_files, recipe
from adarank_jax.models import clip_vision
from experiments import run_vit, yaml_config
from experiments.image_config import ImageMergeConfig
from tests import clip_family

TASKS = tuple(clip_family.TASKS)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    text = clip_family.write_family(folder)
    (folder / "my_merge.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        cache = str(folder / "hub")
        patch.setattr(constants, "HF_HUB_CACHE", cache)
        yield folder


@pytest.fixture(scope="module")
def finished(family):
    run(family, "run")
    return family / "run"


def run(family, name, *overrides, **flags):
    what = (str(family / "my_merge.yaml"), *overrides)
    run_vit.main(run_vit.Options(what=what, run_dir=family / name, **flags))


def listing(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_plan_shows_what_was_found_and_changes_nothing(family, capsys):
    before = listing(family)
    with pytest.raises(SystemExit) as stopped:
        run(family, "planned", plan=True)
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "no problems" in shown
    assert "animals 15 · numbers 20 · Größen/sizes 10" in shown
    assert "8 matrices" in shown
    assert "768 logits" in shown
    assert listing(family) == before


def test_run_leaves_a_table_of_all_methods(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["tasks"] == list(TASKS)
    assert results["qkv"] == "fused"
    assert results["prompts"] == "official"
    assert [row["method"] for row in results["rows"]] == [
        *("pretrained", "individual", "task_arithmetic"),
        *("adarank at step 0", "adarank"),
    ]
    means = [row["agreement"] for row in results["rows"]]
    assert means[1] == 1.0
    assert min(means) < 1.0


def test_run_learns_without_a_network(finished):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 4
    assert rows[-1]["mean_entropy"] < rows[0]["mean_entropy"]


def test_run_records_where_everything_is_from(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["base"]["revision"] == clip_family.COMMIT
    assert manifest["base"]["config"]["activation"] == "quick_gelu"
    assert manifest["experts"]["animals"]["from_base"] == ["proj"]
    assert manifest["experts"]["Größen/sizes"]["layout"] == "open_clip"
    assert manifest["heads"]["numbers"]["templates"][1] == "{} in the photo"
    numbers = {name: found["number"] for name, found in manifest["images"].items()}
    assert numbers == {"animals": 15, "numbers": 20, "Größen/sizes": 10}
    assert len({found["fingerprint"] for found in manifest["images"].values()}) == 3


def test_export_is_the_base_but_for_the_image_tower(family, finished):
    exported = clip.read_clip(str(finished / "export"))
    base = clip.read_clip("tiny/clip-base@main", offline=True)
    assert list(sorted(exported.state.tensors)) == sorted(base.state.tensors)
    for name, array in base.state.tensors.items():
        is_vision = name.startswith(("vision_model.", "visual_projection."))
        same = np.array_equal(array, exported.state.tensors[name])
        assert same or is_vision, name
    merged = files.read(finished / "merged.safetensors")
    for path, leaf in tree.flatten(merged).items():
        np.testing.assert_array_equal(
            leaf, tree.flatten(exported.vision)[path], err_msg=path
        )
    for name in ("tokenizer.json", "preprocessor_config.json", "config.json"):
        root = family / "hub" / "models--tiny--clip-base" / "snapshots"
        theirs = (root / clip_family.COMMIT / name).read_bytes()
        assert (finished / "export" / name).read_bytes() == theirs


def test_export_has_the_head_of_every_task(finished):
    found = {}
    for file in (finished / "export" / "heads").glob("*.json"):
        head = head_files.read_head(file.with_suffix(".safetensors"))
        found[json.loads(file.read_text())["task"]] = head
    assert set(found) == set(TASKS)
    for task, classes in clip_family.TASKS.items():
        assert found[task].class_names == classes
        assert found[task].weight.shape == (len(classes), 16)


def test_export_has_digests_that_hold(finished):
    lines = (finished / "export" / "SHA256SUMS").read_text().splitlines()
    assert len(lines) > 8
    for line in lines:
        digest, name = line.split(maxsplit=1)
        content = (finished / "export" / name.lstrip("*")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_export_says_how_to_make_it_again(finished):
    card = (finished / "export" / "README.md").read_text(encoding="utf-8")
    assert "base_model_relation: merge" in card
    assert f"| base | tiny/clip-base@{clip_family.COMMIT} | mit |" in card
    config = yaml_config.read_config(
        ImageMergeConfig, finished / "export" / "merge.yaml"
    )
    assert config.task_names == TASKS
    assert config.method.rank_ratio == 0.16
    settings = recipe.read_recipe(finished / "export" / "recipe.safetensors").settings
    assert settings.tasks == TASKS


def test_export_in_open_clip_layout_on_request(family):
    run(family, "open_clip", "adaptation.num_steps=1", "export.open_clip=true")
    folder = family / "open_clip" / "export"
    theirs = clip.read_clip(str(folder / "open_clip_model.safetensors"))
    ours = clip.read_clip(str(folder))
    assert theirs.layout.kind == "open_clip"
    assert theirs.config["vision"]["activation"] == "quick_gelu"
    for path, leaf in tree.flatten(ours.vision).items():
        np.testing.assert_array_equal(leaf, tree.flatten(theirs.vision)[path])


def test_split_layout_decomposes_six_matrices_a_block(family, capsys):
    with pytest.raises(SystemExit):
        run(family, "split", "qkv=split", plan=True)
    assert "12 matrices" in capsys.readouterr().out
    static = ("method={name: cart, coefficient: 1.2}", "compare=[]")
    run(family, "split", "qkv=split", *static)
    results = json.loads((family / "split" / "results.json").read_text())
    assert results["qkv"] == "split"
    merged = tree.flatten(files.read(family / "split" / "merged.safetensors"))
    assert "resblocks_0/attn/q_proj/kernel" in merged
    exported = clip.read_clip(str(family / "split" / "export"), "split")
    for path, leaf in tree.flatten(exported.vision).items():
        np.testing.assert_array_equal(leaf, merged[path])


def test_same_command_resumes_with_the_same_bits(family, finished):
    before = (finished / "merged.safetensors").read_bytes()
    results = (finished / "results.json").read_bytes()
    run(family, "run")
    assert (finished / "merged.safetensors").read_bytes() == before
    assert (finished / "results.json").read_bytes() == results


@pytest.mark.parametrize("changed", ["image", "preprocessing"])
def test_changed_inputs_are_not_resumed_with(family, finished, changed):
    root = family / "hub" / "models--tiny--clip-base" / "snapshots"
    file = {
        "image": family / "images" / "animals" / "cat" / "000.png",
        "preprocessing": root / clip_family.COMMIT / "preprocessor_config.json",
    }[changed]
    content = file.read_bytes()
    try:
        if changed == "image":
            Image.new("RGB", (24, 20)).save(file)
        else:
            file.write_bytes(content.replace(b"0.48145466", b"0.1"))
        with pytest.raises(ValueError, match="animals.fingerprint|image_mean|mean"):
            run(family, "run")
    finally:
        file.write_bytes(content)


def test_unlabelled_images_give_agreement_and_no_accuracy(family, capsys):
    for task in clip_family.TASKS:
        name = task.replace("/", "-")
        for i, file in enumerate(sorted((family / "images" / name).rglob("*.png"))):
            target = family / "flat" / name / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    values = yaml.safe_load((family / "my_merge.yaml").read_text(encoding="utf-8"))
    for task, expert in values["experts"].items():
        expert["data"] = str(family / "flat" / task.replace("/", "-"))
    values |= {"method": "task_arithmetic", "compare": ["individual"]}
    (family / "flat.yaml").write_text(yaml.safe_dump(values, allow_unicode=True))
    what = (str(family / "flat.yaml"),)
    run_vit.main(run_vit.Options(what=what, run_dir=family / "flat_run"))
    rows = json.loads((family / "flat_run" / "results.json").read_text())["rows"]
    assert [row["mean"] for row in rows] == [None, None]
    assert "Agreement" in capsys.readouterr().out
    card = (family / "flat_run" / "export" / "README.md").read_text(encoding="utf-8")
    assert "no labels were given" in card


def test_merged_model_is_that_of_the_library(family, finished):
    base = clip.read_clip("tiny/clip-base@main", offline=True)
    sizes = clip_vision.ClipVisionConfig(**base.config["vision"])
    assert sizes == clip_vision.ClipVisionConfig(
        **clip_family.config()["vision"] | {"qkv": "fused"}
    )


@pytest.mark.slow
def test_command_line_runs_in_a_process_of_its_own(family):
    command = [sys.executable, "-m", "experiments.run_vit"]
    command += [str(family / "my_merge.yaml"), "--run-dir", str(family / "process")]
    environment = os.environ | {"HF_HUB_CACHE": str(family / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "adarank" in done.stdout
    assert "Traceback" not in done.stderr
