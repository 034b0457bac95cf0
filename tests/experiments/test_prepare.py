import collections
import io
import subprocess
import sys

import pytest
import tyro
from PIL import Image
from rich.console import Console

from adarank_jax.data import parquet, registry
from experiments import prepare


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No data set is there, and huggingface_hub finds none."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return tmp_path / "data"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Stands for the Hub: a download of three images of RenderedSST2."""
    import huggingface_hub
    import pyarrow as pa
    import pyarrow.parquet as pq

    calls = []
    for profile in registry.PROFILES:
        table = registry._TABLES[profile]
        small = table["RenderedSST2"]._replace(test_sizes=(3,))
        monkeypatch.setitem(table, "RenderedSST2", small)

    def snapshot_download(repo, *, local_files_only=False, dry_run=False, **options):
        calls.append((repo, local_files_only, dry_run, options["revision"]))
        folder = tmp_path / "snapshot"
        if dry_run:
            File = collections.namedtuple("File", "file_size will_download")
            return [File(1_500_000, True), File(7, False)]
        if not folder.exists():
            if local_files_only:
                raise FileNotFoundError("nothing")
            stream = io.BytesIO()
            Image.new("RGB", (5, 5)).save(stream, "PNG")
            rows = {"image": [stream.getvalue()] * 3, "label": [0, 1, 1]}
            (folder / "default" / "test").mkdir(parents=True)
            pq.write_table(pa.table(rows), folder / "default/test/0000.parquet")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def run(**options):
    prepare.main(prepare.Config(**options))


def test_prepare_fetches_from_the_hub_once(empty, server, capsys):
    run(dataset="rendered-sst2")
    shown = capsys.readouterr().out
    assert "a download of 2 MB from nateraw/rendered-sst2" in shown
    assert "is ready: 3 images" in shown
    fetched = [call for call in server if call[1:3] == (False, False)]
    assert fetched == [("nateraw/rendered-sst2", False, False, "refs/convert/parquet")]
    run(dataset="rendered-sst2")
    assert "RenderedSST2 (official) is ready, from hub." in capsys.readouterr().out
    assert [call for call in server if call[1:3] == (False, False)] == fetched


def test_plan_fetches_nothing(empty, server, capsys):
    run(dataset="rendered-sst2", plan=True)
    assert "a download of" in capsys.readouterr().out
    assert all(offline or dry for _, offline, dry, _ in server)


def test_full_disk_is_found_before_the_download(empty, server, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: usage(9, 9, 2_000_000))
    with pytest.raises(OSError, match="E401 .*2 MB free, expected at least 3 MB"):
        run(dataset="rendered-sst2")
    assert all(offline or dry for _, offline, dry, _ in server)


def test_set_of_the_wrong_size_is_refused_after_the_download(
    empty, server, monkeypatch
):
    table = registry._TABLES["official"]
    monkeypatch.setitem(
        table, "RenderedSST2", table["RenderedSST2"]._replace(test_sizes=(1_821,))
    )
    with pytest.raises(ValueError, match="3 images, expected 1,821"):
        run(dataset="rendered-sst2")


def test_list_shows_every_data_set_and_what_is_ready(empty, server, tmp_path):
    (empty / "stanford-cars").mkdir(parents=True)
    parquet.fetch("nateraw/rendered-sst2", "test", "default", "refs/convert/parquet")
    console = Console(width=200, file=io.StringIO(), record=True)
    ready = prepare.show("official", empty, console)
    assert list(ready) == list(registry.names())
    assert ready["Cars"].startswith("own")
    assert "hub" in ready["RenderedSST2"]
    assert ready["EMNIST"] == "-"
    shown = console.export_text()
    for part in ("19,850 or 19,887", "emnist/digits", "tfds does not have it"):
        assert part in shown


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "--list"),
        ({"dataset": "svnh"}, ValueError, "E314.*did you mean 'SVHN'"),
        (
            {"dataset": "gtsrb", "source": "tfds"},
            ValueError,
            "72 pixels.*--source hub",
        ),
        ({"dataset": "emnist", "source": "hub"}, ValueError, "--source tfds"),
    ],
)
def test_what_cannot_be_prepared_is_refused_at_once(empty, options, error, message):
    with pytest.raises(error, match=message):
        run(data_dir=empty, **options)
    assert not empty.exists()


def test_tfds_says_what_it_needs(empty, monkeypatch, capsys):
    found = prepare.importlib.util.find_spec
    missing = lambda name: None if name in prepare._TO_PREPARE else found(name)
    monkeypatch.setattr(prepare.importlib.util, "find_spec", missing)
    with pytest.raises(OSError, match="E420 .*pip install tensorflow-cpu importlib"):
        run(dataset="emnist", data_dir=empty)
    assert "missing: tensorflow, importlib_resources" in capsys.readouterr().out
    run(dataset="cars", source="tfds", data_dir=empty, plan=True)
    assert "404 since 2023" in " ".join(capsys.readouterr().out.split())
    assert not empty.exists()
    assert "tensorflow" not in sys.modules


def test_options_are_explained_and_misspelt_ones_answered(capsys):
    command = [sys.executable, "-m", "experiments.prepare", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("--dataset", "--list", "--data-dir", "League"):
        assert word in shown
    with pytest.raises(SystemExit):
        tyro.cli(prepare.Config, args=["--datasett", "svhn"])
    assert "--dataset" in capsys.readouterr().err
