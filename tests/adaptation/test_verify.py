import pytest

from adarank_jax import errors
from adarank_jax.adaptation import verify
from adarank_jax.adaptation.run_folder import RunFolder
from adarank_jax.checkpoints import factors, files, folders
from tests.adaptation import problems
from tests.adaptation.test_loop import run

UNSEEN = {"lock", "lock.json"}
"""They say who writes at the moment."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with one file of each kind."""
    root = tmp_path_factory.mktemp("verify") / "run"
    run(root)
    problem = problems.problem()
    models = [problem.origin]
    factors.cached_factors(root / "factors", models, lambda: problem.factors, "cart")
    files.write(root / "merged.safetensors", problem.origin)
    files.write(root / "adapted" / "run" / "variables.safetensors", problem.origin)
    folder = RunFolder(root, {}, restart=False)
    folder.mark(python="3.11")
    folder.write_json("results.json", {"rows": []})
    with folders.whole_folder(root / "export") as new:
        (new / folders.MARK).write_text("{}")
        (new / "model.safetensors").write_bytes(b"weights")
    return root


def damaged(root):
    return [str(each.place) for each in verify.verify(root) if each.damage is not None]


def test_run_that_nobody_touched_is_as_it_was_written(whole):
    found = [each.place.relative_to(whole).as_posix() for each in verify.verify(whole)]
    assert not damaged(whole)
    assert {"config.yaml", "manifest.json", "results.json", "export"} <= {*found}
    assert "metrics.jsonl" in found and "merged.safetensors" in found
    assert sum(name.startswith("checkpoints/run/") for name in found) == 3
    assert len(found) == 11


def test_every_changed_bit_is_found(whole):
    every = [path for path in whole.rglob("*") if path.is_file()]
    for file in every:
        content = file.read_bytes()
        if file.name in UNSEEN or not content:
            continue
        for place in {0, len(content) // 2, len(content) - 2}:
            changed = bytearray(content)
            changed[place] ^= 0x81
            file.write_bytes(changed)
            found = damaged(whole)
            assert found, (file, place)
            assert all(str(file).startswith(each) for each in found), (file, found)
        file.write_bytes(content)
    assert not damaged(whole)


def test_export_alone_is_verified_too(whole):
    assert not damaged(whole / "export")
    (whole / "export" / "more").write_text("")
    (found,) = verify.verify(whole / "export")
    assert found.damage.code == "E607" and "'more' was added" in found.damage.found
    (whole / "export" / "more").unlink()


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [("none", errors.MissingError, "E101"), ("", errors.InputError, "E608")],
)
def test_folder_that_is_neither_is_refused(tmp_path, name, error, code):
    with pytest.raises(error, match=code):
        list(verify.verify(tmp_path / name))
