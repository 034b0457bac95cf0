import pathlib
import re
import subprocess
import sys

import pytest

import adarank_jax

README = pathlib.Path(__file__).parent.parent / "README.md"
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


@pytest.mark.parametrize("command", ["run_vit", "finetune"])
def test_readme_commands_have_options_that_exist(command):
    lines = re.findall(rf"python -m experiments\.{command}(.*)", README.read_text())
    options = {o for line in lines for o in re.findall(r"--[\w.-]+", line)}
    shown = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert lines
    assert all(option in shown or option == "--help" for option in options)
