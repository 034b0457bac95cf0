import json
import pathlib

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file

from adarank_jax.checkpoints import clip, clip_config, hub
from adarank_jax.errors import InputError
from tests.checkpoints import tiny_clip, tiny_folders

SHA = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"


def cached(cache, files, repo="models--org--name", sha=SHA):
    """Lays a folder out as the cache of the Hub: blobs, links to them, and a ref."""
    root = cache / repo
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(sha)
    for i, (name, write) in enumerate(files.items()):
        write(root / "blobs" / str(i))
        link = root / "snapshots" / sha / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(root / "blobs" / str(i))
    return root / "snapshots" / sha


def weights(path):
    save_file(tiny_clip.hugging_face(), path)


def config(path):
    path.write_text(json.dumps(tiny_clip.CONFIG))


MODEL = {"config.json": config, "model.safetensors": weights}


@pytest.mark.parametrize("name", ["org/name", "org/name@main", f"org/name@{SHA}"])
def test_a_cached_repository_is_found_offline(tmp_path, name):
    folder = cached(tmp_path, MODEL)
    found = hub.resolve(name, offline=True, cache_dir=tmp_path)
    assert found == hub.Resolved(folder, "org/name", SHA, None)


def test_a_cached_file_and_a_cached_folder_are_found_offline(tmp_path):
    folder = cached(
        tmp_path, {"Cars/finetuned.pt": config, "a/b/model.safetensors": weights}
    )
    found = hub.resolve("org/name:Cars/finetuned.pt", True, tmp_path)
    assert found == (folder / "Cars/finetuned.pt", "org/name", SHA, "Cars/finetuned.pt")
    found = hub.resolve("org/name@main:a/b", True, tmp_path)
    assert found == (folder / "a/b", "org/name", SHA, "a/b")


def test_a_model_is_read_through_the_links_of_the_cache(tmp_path, monkeypatch):
    cached(tmp_path, MODEL)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoint = clip.read_clip("org/name@main", offline=True)
    assert checkpoint.revision == SHA
    assert checkpoint.config["vision"]["num_heads"] == 4
    tiny_clip.assert_same(
        clip.to_hugging_face(checkpoint), tiny_clip.hugging_face(), in_order=False
    )


def test_a_single_file_is_read_with_the_configuration_in_its_folder(
    tmp_path, monkeypatch
):
    gelu = clip_config.to_hugging_face_config(tiny_folders.CONFIG)
    for tower in ("vision_config", "text_config"):
        gelu[tower]["hidden_act"] = "gelu"
    tensors = tiny_folders.state("hugging_face")
    folder = cached(tmp_path, {"a/m.safetensors": lambda p: save_file(tensors, p)})
    asked = []

    def download(repo, allow_patterns, **options):
        asked.append((repo, options["revision"], pathlib.Path(options["cache_dir"])))
        assert "a/config.json" in allow_patterns
        (folder / "a" / "config.json").write_text(json.dumps(gelu))
        return str(folder)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before = clip.read_clip("org/name:a/m.safetensors", offline=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    after = clip.read_clip("org/name:a/m.safetensors", offline=True)
    assert asked == [("org/name", SHA, tmp_path)]
    assert before.config["vision"]["activation"] == "quick_gelu"
    assert "QuickGELU, epsilon 1e-5 and heads of 64" in str(before.warnings[0])
    assert after.config["vision"]["activation"] == "gelu"
    assert after.warnings == ()


@pytest.mark.parametrize(
    ("source", "revision", "expected"),
    [
        ("org/name", SHA, f"org/name@{SHA}"),
        ("org/name@main", SHA, f"org/name@{SHA}"),
        ("org/name:a/b.pt", SHA, f"org/name@{SHA}:a/b.pt"),
        ("org/name", None, "org/name"),
        ("./a/b.pt", None, "./a/b.pt"),
    ],
)
def test_a_source_is_pinned_to_its_commit(source, revision, expected):
    assert hub.pin(source, revision) == expected


@pytest.mark.parametrize("name", ["org/gone", "org/name@other", "org/name:Cars/x.pt"])
def test_what_is_not_cached_is_said_so_offline(tmp_path, name):
    cached(tmp_path, MODEL)
    with pytest.raises(FileNotFoundError, match="not in the cache.*pass a folder"):
        hub.resolve(name, offline=True, cache_dir=tmp_path)


def test_the_environment_switches_the_network_off(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="network is switched off"):
        hub.resolve("org/name", cache_dir=tmp_path)


def test_a_cached_repository_without_weights_is_named(tmp_path):
    cached(tmp_path, {"config.json": config})
    with pytest.raises(
        FileNotFoundError, match=r"no weights.*\['config.json'\].*org/name:"
    ):
        hub.resolve("org/name", offline=True, cache_dir=tmp_path)


def test_bin_files_are_taken_only_without_safetensors(monkeypatch, tmp_path):
    asked = []

    def download(repo, allow_patterns, **options):
        asked.append((allow_patterns, options["revision"]))
        if "pytorch_model.bin" in allow_patterns:
            (folder / "pytorch_model.bin").write_bytes(b"x")
        return str(folder)

    folder = tmp_path / "snapshots" / SHA
    folder.mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.resolve("org/name").path == folder
    assert [revision for _, revision in asked] == [None, SHA, SHA]
    assert all("config.json" in patterns for patterns, _ in asked)
    assert "model.safetensors" in asked[0][0]
    asked.clear()
    (folder / "model.safetensors").write_bytes(b"x")
    assert hub.resolve("org/name").revision == SHA
    assert len(asked) == 1


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub/api"))


def cause(error, by):
    error.__cause__ = by
    return error


FAILURES = {
    "gated": (
        errors.GatedRepoError("m", response=response(403)),
        InputError,
        "E104 .*'org/name' is gated.*hf auth login",
    ),
    "absent": (
        errors.RepositoryNotFoundError("m", response=response(404)),
        FileNotFoundError,
        "E103 `org/name@v2:a.pt`: .*no public repository 'org/name'",
    ),
    "revision": (
        errors.RevisionNotFoundError("m", response=response(404)),
        FileNotFoundError,
        "'org/name' has no revision 'v2'",
    ),
    "file": (
        errors.RemoteEntryNotFoundError("m", response=response(404)),
        FileNotFoundError,
        "'org/name' has no file 'a.pt' at revision 'v2'",
    ),
    "token": (
        errors.HfHubHTTPError("m", response=response(401)),
        InputError,
        "E104 .*answered 401.*log in",
    ),
    "busy": (
        errors.HfHubHTTPError("m", response=response(503)),
        ConnectionError,
        "answered 503.*try again later",
    ),
    "proxy": (
        httpx2.ProxyError("refused"),
        ConnectionError,
        r"cannot be reached \(ProxyError: refused\).*proxy",
    ),
    "network": (
        cause(errors.LocalEntryNotFoundError("m"), httpx2.ConnectError("dns")),
        ConnectionError,
        r"'org/name' at 'v2'.*cannot be reached \(ConnectError\)",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_of_the_hub_are_explained(monkeypatch, failure):
    error, kind, message = FAILURES[failure]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(kind, match=message) as raised:
        hub.resolve("org/name@v2:a.pt")
    assert raised.value.__cause__ is error


def test_no_token_is_ever_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with pytest.raises(FileNotFoundError) as raised:
        hub.resolve("org/name", offline=True, cache_dir=tmp_path)
    assert "hf_secret" not in str(raised.value)


def test_a_path_that_exists_wins(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("org/name").repo is None
    assert hub.resolve(tmp_path / "org").path == tmp_path / "org"


def test_a_misspelt_path_has_the_nearest_name(tmp_path):
    for name in ("svhn", "mnist"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"svnh`: .*; did you mean `.*/svhn`\?"):
        hub.resolve(tmp_path / "svnh")
    message = r"file or folder.*did you mean `.*/svhn`"
    with pytest.raises(FileNotFoundError, match=message):
        hub.resolve(tmp_path / "svnh" / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="holds mnist, svhn"):
        hub.resolve(tmp_path / "zzzzzz")


@pytest.mark.parametrize(
    "name", ["a/b/c", "name", "org/na me", "org/..", "-a/b", "a//b"]
)
def test_what_is_neither_path_nor_name_is_said_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no name on the Hub either.*org/name\["
    ):
        hub.resolve(name)


@pytest.mark.parametrize(
    "name", ["./a/b", "ckpts/model.safetensors", "/a/b", "~/a/b", "a/"]
)
def test_what_can_only_be_a_path_is_not_looked_up(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        hub.resolve(name)


@pytest.mark.parametrize(
    "subpath", ["../x.pt", "a/../x.pt", "/x.pt", "a\\x.pt", "a//x.pt"]
)
def test_a_path_out_of_the_repository_is_refused(subpath):
    with pytest.raises(ValueError, match="inside the repository"):
        hub.resolve(f"org/name:{subpath}", offline=True)


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="got none"):
        hub.resolve(" ")


def test_names_are_split():
    name = "JH-C-k/ViT-B-32@main:ViT-B-32_TA/Cars/finetuned.pt"
    expected = ("JH-C-k/ViT-B-32", "main", "ViT-B-32_TA/Cars/finetuned.pt")
    assert hub.parse(name) == expected
    assert hub.parse("org/name@refs/pr/1") == ("org/name", "refs/pr/1", None)
