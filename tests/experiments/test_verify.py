import pytest

from adarank_jax import errors
from adarank_jax.adaptation.run_folder import RunFolder
from experiments import verify


def test_verify_tells_all_that_is_damaged_in_all_folders(tmp_path, capsys):
    for name in ("good", "bad"):
        RunFolder(tmp_path / name, {}, restart=False).write_json("results.json", {})
    (tmp_path / "bad" / "results.json").write_text("{}")
    verify.main(verify.Options((tmp_path / "good",)))
    assert "good: 2 files and states compared" in capsys.readouterr().out
    given = (tmp_path / "bad", tmp_path / "typo", tmp_path / "good")
    with pytest.raises(errors.Problems) as caught:
        verify.main(verify.Options(given))
    assert [each.code for each in caught.value.messages] == ["E602", "E101"]
    assert caught.value.exit_code == 6


def test_verify_of_nothing_is_refused():
    with pytest.raises(errors.UsageError, match="no folder given"):
        verify.main(verify.Options(()))
