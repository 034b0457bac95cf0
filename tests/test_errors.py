"""Tests of the family of errors: codes, titles, the page that explains them."""

import ast
import pathlib
import re

import pytest

from adarank_jax import errors

ROOT = pathlib.Path(__file__).parents[1]
KINDS = {
    errors.UsageError: (2, ValueError),
    errors.InputError: (3, ValueError),
    errors.MissingError: (3, FileNotFoundError),
    errors.UnreachableError: (3, ConnectionError),
    errors.MachineError: (4, OSError),
    errors.NumericsError: (5, FloatingPointError),
    errors.DamageError: (6, ValueError),
}


def codes_in_source():
    """Returns every string of the form of a code that the programs hold."""
    for folder in ("adarank_jax", "experiments"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if file.name != "errors.py" and isinstance(node, ast.Constant):
                    if re.fullmatch(r"[EW]\d{3}", str(node.value)):
                        yield node.value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_is_caught_as_the_builtin_that_it_refines(kind):
    code, builtin = KINDS[kind]
    with pytest.raises(builtin) as caught:
        raise kind("E110", "0 bytes", "`a.pt`", expected="more", remedy="get it again")
    assert str(caught.value) == "E110 `a.pt`: 0 bytes, expected more; get it again."
    assert isinstance(caught.value, errors.AdaRankError)
    assert caught.value.exit_code == code


def test_problems_show_every_message():
    messages = [errors.Message("E110", "0 bytes"), errors.Message("E101", "no file")]
    problems = errors.Problems(messages, 3)
    assert str(problems) == "E110 0 bytes.\nE101 no file."
    assert problems.exit_code == 3


def test_every_code_that_is_raised_has_a_title_and_every_title_is_used():
    assert set(codes_in_source()) == set(errors.TITLES)


def test_error_index_explains_every_code_once_under_its_title():
    text = (ROOT / "docs" / "errors.md").read_text()
    found = re.findall(r'^### <a id="([ew]\d{3})"></a>([EW]\d{3}) (.+)$', text, re.M)
    assert all(anchor == code.lower() for anchor, code, _ in found)
    assert [(code, title) for _, code, title in found] == sorted(errors.TITLES.items())
