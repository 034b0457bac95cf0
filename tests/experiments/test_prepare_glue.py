import collections
import io
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from rich.console import Console

from adarank_jax.data import glue
from experiments import prepare, prepare_glue


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Stands for the Hub: a download of RTE's validation split."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    calls, rows = [], {"count": 277}

    def snapshot_download(repo, *, local_files_only=False, dry_run=False, **options):
        calls.append((repo, local_files_only, dry_run))
        if "rte/validation-*.parquet" not in options.get("allow_patterns", ()):
            raise FileNotFoundError("nothing else is here")
        folder = tmp_path / "snapshot"
        if dry_run:
            File = collections.namedtuple("File", "file_size will_download")
            return [File(70_000, True)]
        if not folder.exists():
            if local_files_only:
                raise FileNotFoundError("nothing")
            (folder / "rte").mkdir(parents=True)
            names = ("sentence1", "sentence2")
            columns = {name: ["a text"] * rows["count"] for name in names}
            labels = [i % 2 for i in range(rows["count"])]
            path = folder / "rte" / "validation-00000-of-00001.parquet"
            pq.write_table(pa.table(columns | {"label": labels}), path)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls, rows


def run(**options):
    prepare.main(prepare.Config(**options))


@pytest.mark.parametrize("name", ["rte", "glue/rte", "RTE"])
def test_task_is_fetched_once(server, capsys, name):
    calls, _ = server
    run(dataset=name, plan=True)
    assert "needs a download of 0.1 MB from the Hub" in capsys.readouterr().out
    assert all(local or dry for _, local, dry in calls)
    run(dataset=name)
    shown = capsys.readouterr().out
    assert "rte (validation) is ready, from hub: 277 examples." in shown
    before = len(calls)
    run(dataset=name)
    assert calls[before:] == [("nyu-mll/glue", True, False)]


def test_task_of_the_wrong_size_is_refused(server):
    server[1]["count"] = 276
    with pytest.raises(ValueError, match="has 276 examples, expected 277"):
        run(dataset="rte")


def test_tfds_says_what_it_needs(server, tmp_path, capsys, monkeypatch):
    run(dataset="rte", source="tfds", data_dir=tmp_path, plan=True)
    assert "needs a download of 0.7 MB by tfds" in capsys.readouterr().out
    run(dataset="mnli", source="tfds", data_dir=tmp_path, plan=True)
    assert "needs a download of 312.8 MB by tfds" in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OSError, match="E420 .*importlib_resources to prepare rte"):
        run(dataset="rte", source="tfds", data_dir=tmp_path)


def test_sizes_are_those_of_tfds():
    sums = pathlib.Path(tfds.__file__).parent / "url_checksums/glue.txt"
    rows = [line.split("\t") for line in sums.read_text().splitlines()]
    sizes = {url: int(size) for url, size, *_ in rows}
    assert list(prepare_glue.TFDS_SIZES) == glue.names()
    for name, size in prepare_glue.TFDS_SIZES.items():
        url = tfds.builder(f"glue/{name}").builder_config.data_url
        parts = {url: sizes[url]} if url else _without(sizes, "zip", "bit.ly")
        assert sum(parts.values()) == size, name


def _without(sizes, *words):
    """Returns the files of MRPC, which are not hosted with the others."""
    return {
        url: size
        for url, size in sizes.items()
        if not any(word in url for word in words)
    }


def test_list_shows_the_tasks_and_which_are_ready(server, tmp_path, capsys):
    run(dataset="rte")
    (tmp_path / "data/cola").mkdir(parents=True)
    rows = "".join(f"text {i},{i % 2}\n" for i in range(1_043))
    (tmp_path / "data/cola/validation.csv").write_text(f"sentence,label\n{rows}")
    console = Console(width=100, file=io.StringIO())
    ready = prepare_glue.show(tmp_path / "data", console)
    assert list(ready) == glue.names()
    assert ready == dict.fromkeys(glue.names(), "-") | {"rte": "hub", "cola": "own"}
    run(list_all=True)
    shown = capsys.readouterr().out
    for part in ("RenderedSST2", "validation_matched", "40,430", "matthews"):
        assert part in shown


def test_regression_and_unknown_tasks_are_refused(server):
    with pytest.raises(ValueError, match="E308.*STS-B is a regression"):
        run(dataset="glue/stsb")
    with pytest.raises(ValueError, match="E314.*no GLUE task 'wnli'"):
        run(dataset="glue/wnli")
