import pathlib
import re
import subprocess
import sys

import pytest

import adarank_jax
from experiments import presets, text_presets, yaml_config
from experiments.image_config import ImageMergeConfig
from experiments.text_config import TextMergeConfig

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
FILES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = {"your_own_experts.md": ImageMergeConfig, "your_own_texts.md": TextMergeConfig}
HEAVY = ("jax", "flax", "transformers", "tensorflow_datasets", "matplotlib", "orbax")


@pytest.mark.parametrize("name", adarank_jax.__all__)
def test_public_name_is_there(name):
    assert getattr(adarank_jax, name) is not None
    assert name in dir(adarank_jax)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'decompsoe'"):
        _ = adarank_jax.decompsoe


def test_import_loads_nothing_heavy():
    code = f"import sys, adarank_jax; print([m for m in {HEAVY} if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_readme_python_prints_what_it_says(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    expected = re.findall(r"print\(.*\)\s+# (.*)", block)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == expected


def commands():
    """Lists the options that the documentation gives to every command."""
    found = {}
    for file in (README, *sorted((ROOT / "docs").glob("*.md"))):
        text = file.read_text().replace("\\\n", " ")
        for name, rest in re.findall(r"python -m experiments\.(\w+)([^`\n]*)", text):
            found.setdefault(name, set()).update(re.findall(r"--[a-z][\w-]*", rest))
    return found


@pytest.mark.parametrize("command", sorted(commands()))
def test_documented_commands_have_options_that_exist(command):
    shown = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in commands()[command]:
        assert re.search(rf"{option}\b", shown), option


def test_documented_presets_exist():
    tables = {"run_vit": presets, "run_glue": text_presets}
    found = 0
    for file in FILES:
        text = file.read_text().replace("\\\n", " ")
        for command, name in re.findall(
            r"experiments\.(run_\w+)[^`\n]*--preset ([a-z][\w-]*)", text
        ):
            assert name in tables[command].all_presets(), (file.name, name)
            found += 1
    assert found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_documented_configurations_are_valid(file):
    blocks = re.findall(r"```yaml\n(.*?)```", file.read_text(), re.DOTALL)
    assert len(blocks) >= (file.name in KINDS)
    kind = KINDS.get(file.name, ImageMergeConfig)
    for block in blocks:
        values, places = yaml_config.parse(block, file.name, kind)
        assert yaml_config.validate(kind, values, places, (), file.name).task_names


def test_documentation_links_lead_somewhere():
    for file in (README, *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), (file.name, target)
