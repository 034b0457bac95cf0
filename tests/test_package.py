import pathlib
import re
import subprocess
import sys

import pytest

import adarank_jax
from experiments import presets, yaml_config

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"
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
    text = README.read_text()
    for name in re.findall(r"--preset ([\w-]+)", text):
        presets.get(name)


@pytest.mark.parametrize("file", [README, ROOT / "docs" / "your_own_experts.md"])
def test_documented_configurations_are_valid(file):
    for block in re.findall(r"```yaml\n(.*?)```", file.read_text(), re.DOTALL):
        values, places = yaml_config.parse(block, file.name)
        assert yaml_config.validate(values, places, (), file.name).task_names


def test_documentation_links_lead_somewhere():
    for file in (README, *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / target).exists(), (file.name, target)
