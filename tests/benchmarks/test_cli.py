"""What the benchmarks share: options, results and how they are shown."""

import json

import pytest

from benchmarks import cli, factors, scaling, step

COMMANDS = (
    # module, arguments
    (step, ["--shapes", "roberta-base", "--tasks", "3", "--rank-ratio", "0.16"]),
    (factors, ["--spectrum", "flat", "--backend", "host", "--repeats", "2"]),
    (scaling, ["--tasks", "2", "4", "--tokens", "8"]),
)


@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_result_has_the_command_that_repeats_it(module, arguments):
    options = module.parse(arguments)
    given = cli.result(module.__name__, options)["command"].split()
    assert given[:3] == ["python", "-m", module.__name__]
    assert module.parse(given[3:]) == options != module.parse([])


def test_run_shows_a_result_and_its_row(capsys, tmp_path):
    options = step.parse(["--out", str(tmp_path / "result.json")])
    begun = {"command": "python -m x", "commit": "abc1234", "machine": "2 cores"}
    cli.run(options, lambda given: begun | {"ratio": 2.5}, lambda x: [str(x["ratio"])])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "| `python -m x` | 2.5 | abc1234 | 2 cores |"
    assert json.loads((tmp_path / "result.json").read_text()) == begun | {"ratio": 2.5}
    assert (tmp_path / "result.json").read_text() in printed


def test_run_names_the_extra_without_which_nothing_is_measured():
    with pytest.raises(
        SystemExit, match=r"no_such_module .*pip install -e '.\[bench\]"
    ):
        cli.run(step.parse([]), lambda given: {}, lambda x: [], ["no_such_module"])
