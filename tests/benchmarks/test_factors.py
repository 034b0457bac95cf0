"""The benchmark of the decomposition: its options and its errors; nothing is timed."""

import json

import numpy as np
import pytest

from benchmarks import factors
from tests import helpers

WRONG = (
    # arguments, message
    (["--tasks", "0"], "argument --tasks: must be at least 1, got '0'"),
    (["--repeats", "many"], "argument --repeats: must be at least 1, got 'many'"),
    (["--backend", "magma"], "argument --backend: invalid choice: 'magma'"),
    (["--spectrum", "none"], "argument --spectrum: invalid choice: 'none'"),
)


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_parse_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        factors.parse(arguments)
    assert message in capsys.readouterr().err


def test_draw_has_the_matrices_of_a_layer():
    stacks = factors.draw("vit-b-32", 1, "decaying")
    assert sorted(stack.shape for stack in stacks.values()) == [
        (1, 768, 768),
        (1, 768, 2304),
        (1, 768, 3072),
        (1, 3072, 768),
    ]


def test_draw_differs_in_the_spectrum():
    square = {
        kind: next(
            stack[0, :200, :200]
            for stack in factors.draw("vit-b-32", 1, kind).values()
            if stack.shape == (1, 768, 768)
        )
        for kind in factors.SPECTRA
    }
    s = {kind: np.linalg.svd(x, compute_uv=False) for kind, x in square.items()}
    assert s["decaying"][0] > 5 * s["decaying"][40]
    assert s["flat"][0] < 2 * s["flat"][40]


def test_worst_finds_an_error_in_either_side():
    matrix = helpers.matrix(0, 6, 4)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    good = factors.worst([matrix, matrix], [(u, s, vt)] * 2)
    assert max(good.values()) < 1e-5
    bad = factors.worst([matrix, matrix], [(u, s, vt), (u, s * 1.01, vt)])
    assert bad["reconstruction"] == pytest.approx(0.01, rel=1e-3)
    bent = vt * np.float32([[1], [1], [1], [1.5]])
    assert factors.worst([matrix], [(u, s, bent)])["orthonormality"] > 1


@pytest.mark.slow
def test_both_sides_are_timed_and_accurate(monkeypatch, capsys, tmp_path):
    pytest.importorskip("torch")
    small = {"w": helpers.matrix(0, 2, 40, 30), "v": helpers.matrix(1, 2, 20, 30)}
    monkeypatch.setattr(factors, "draw", lambda *arguments: small)
    factors.main(["--repeats", "1", "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    for errors in result["errors"].values():
        assert errors["reconstruction"] < 5e-6
    assert all(len(values) == 1 for values in result["seconds"].values())
    assert f"`{result['command']}`" in capsys.readouterr().out
