import concurrent.futures
import io
import json
import os
import threading
import zipfile

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import errors as failures
from PIL import Image

from adarank_jax import errors
from adarank_jax.data import class_order, loading, npz, parquet, registry, sources
from adarank_jax.data.folders import ImageFolder
from adarank_jax.data.npz import NpzImages
from adarank_jax.data.sources import Arrays, Relabelled
from experiments import task_images
from experiments.image_config import Data


def picture(value, size=(9, 8)):
    return Image.new("RGB", size, (value, value, value))


def content(value, size=(9, 8)):
    stream = io.BytesIO()
    picture(value, size).save(stream, "PNG")
    return stream.getvalue()


def write_folder(root, **classes):
    """Writes `classes[name]` pictures into each class folder."""
    for name, values in classes.items():
        (root / name).mkdir(parents=True)
        for value in values:
            picture(value).save(root / name / f"{value:03}.png")
    return root


def read(source):
    return [
        (int(image[0, 0, 0]), label)
        for image, label in map(source.__getitem__, range(len(source)))
    ]


# Folders.


def test_folder_gives_images_and_labels_in_the_order_of_names(tmp_path):
    folder = ImageFolder(write_folder(tmp_path, dog=[7, 3], cat=[9]))
    assert folder.classes == ("cat", "dog")
    assert read(folder) == [(9, 0), (3, 1), (7, 1)]
    assert folder.labels.tolist() == [0, 1, 1]
    assert folder[0][0].shape == (8, 9, 3)


def test_folder_numbers_classes_as_told(tmp_path):
    root = write_folder(tmp_path, Sea_Lake=[1], river=[2])
    folder = ImageFolder(root, classes=("river", "forest", "sea lake"))
    assert read(folder) == [(1, 2), (2, 0)]
    assert folder.report.missing == ["forest"]


def test_folder_of_no_class_is_answered_with_the_nearest(tmp_path):
    root = write_folder(tmp_path, forrest=[1])
    with pytest.raises(errors.InputError, match="E310.*forrest.*mean 'forest'"):
        ImageFolder(root, classes=("river", "forest"))


def test_folder_finds_files_at_any_depth(tmp_path):
    write_folder(tmp_path / "abbey", indoor=[1])
    assert read(ImageFolder(tmp_path)) == [(1, 0)]


def test_flat_folder_has_no_labels(tmp_path):
    folder = ImageFolder(write_folder(tmp_path, flat=[4, 2]) / "flat")
    assert read(folder) == [(2, -1), (4, -1)]
    assert folder.classes == ()


def test_images_beside_class_folders_are_refused(tmp_path):
    write_folder(tmp_path, cat=[1])
    picture(1).save(tmp_path / "stray.png")
    with pytest.raises(errors.InputError, match="E332.*stray.png"):
        ImageFolder(tmp_path)


def test_folder_without_images_says_what_it_holds(tmp_path):
    for number in range(14):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(errors.InputError, match=r"E320.*no image, but 14 \.txt"):
        ImageFolder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing at all"):
        ImageFolder(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="gone"):
        ImageFolder(tmp_path / "gone")


def test_folder_lists_all_bad_images_at_once(tmp_path):
    write_folder(tmp_path, cat=[1, 2, 3])
    (tmp_path / "cat" / "empty.jpg").write_bytes(b"")
    (tmp_path / "cat" / "page.png").write_text("<html>")
    (tmp_path / "cat" / "cut.png").write_bytes(content(1)[:-20])
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "JPEG")
    (tmp_path / "cat" / "cut.jpg").write_bytes(stream.getvalue()[:-50])
    with pytest.raises(errors.InputError, match="E331.*4 of 7") as caught:
        ImageFolder(tmp_path)
    for name in ("empty.jpg", "page.png", "cut.png", "cut.jpg", "on_bad_image"):
        assert name in str(caught.value)


def test_folder_skips_up_to_one_per_cent(tmp_path):
    write_folder(tmp_path, cat=range(100))
    (tmp_path / "cat" / "050.png").write_bytes(b"")
    folder = ImageFolder(tmp_path, on_bad_image="skip")
    assert len(folder) == len(folder.labels) == folder.report.images == 99
    assert "050.png" in folder.report.bad[0]
    assert 50 not in dict(read(folder))
    (tmp_path / "cat" / "051.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"E322.*2 of 100 .*more than 1%"):
        ImageFolder(tmp_path, on_bad_image="skip")
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        ImageFolder(tmp_path, on_bad_image="ignore")


def test_folder_reports_what_is_unusual(tmp_path):
    write_folder(tmp_path, cat=[1, 2])
    picture(3, (1, 40)).convert("L").save(tmp_path / "cat" / "thin.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "cat" / "clear.png")
    frames = [picture(1), picture(200)]
    frames[0].save(
        tmp_path / "cat" / "moving.gif", save_all=True, append_images=frames[1:]
    )
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "cat" / ".DS_Store").write_text("")
    report = ImageFolder(tmp_path).report
    assert report.images == 5
    assert report.modes["L"] == report.modes["RGBA"] == 1
    assert (report.transparent, report.animated, report.tiny) == (1, 1, 1)
    assert report.ignored == {".txt": 1}
    assert report.bad == report.missing == []


def test_folder_survives_pipes_and_loops_of_links(tmp_path):
    write_folder(tmp_path, cat=[1])
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "self.png").symlink_to(tmp_path / "cat" / "self.png")
    (tmp_path / "cat" / "zlink.png").symlink_to(tmp_path / "cat" / "001.png")
    found = []
    thread = threading.Thread(
        target=lambda: found.append(ImageFolder(tmp_path)), daemon=True
    )
    thread.start()
    thread.join(20)
    assert read(found[0]) == [(1, 0), (1, 0)]
    assert found[0].report.ignored == {"broken link": 1, "no regular file": 1}


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside = write_folder(tmp_path / "outside", secret=[5])
    root = write_folder(tmp_path / "root", cat=[1])
    (root / "dog").symlink_to(outside / "secret")
    with pytest.raises(ValueError, match="E328.*1 symbolic links that lead out.*dog"):
        ImageFolder(root)
    assert read(ImageFolder(root, follow_links=True)) == [(1, 0), (5, 1)]


# npz files.


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3)])
def test_npz_gives_images_and_labels(tmp_path, shape):
    images = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([3, 1, 0, 2]))
    source = NpzImages(tmp_path / "a.npz")
    image, label = source[1]
    assert label == 1
    expected = images[1] if shape[-1] == 3 else images[1].reshape(5, 6, 1)
    np.testing.assert_array_equal(image, np.broadcast_to(expected, (5, 6, 3)))


def test_npz_without_labels_has_none(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((2, 3, 3), np.uint8))
    assert NpzImages(tmp_path / "a.npz")[1][1] == sources.NO_LABEL


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros(3)}, r"E160.*\['pictures'\], expected `images`"),
        ({"images": np.zeros((2, 3, 3))}, "E333.*float64"),
        ({"images": np.zeros((2, 3), np.uint8)}, r"E333.*\(2, 3\)"),
        ({"images": np.zeros((2, 3, 3, 2), np.uint8)}, "E333.*shape"),
        ({"images": np.zeros((0, 3, 3), np.uint8)}, "E320.*no image"),
        (
            {"images": np.zeros((2, 3, 3), np.uint8), "labels": np.zeros(3, int)},
            r"E312.*shape \(2,\)",
        ),
        (
            {"images": np.zeros((2, 3, 3), np.uint8), "labels": np.array([0.5, 1])},
            "E313.*class numbers",
        ),
        (
            {"images": np.zeros((1, 3, 3), np.uint8), "labels": np.array([-2])},
            "E313.*from -2",
        ),
        (
            {"images": np.array([{"a": 1}], object)},
            "E160.*plain arrays.*allow_pickle",
        ),
    ],
)
def test_npz_refuses_other_arrays_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(errors.InputError, match=message) as caught:
        NpzImages(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)


def test_damaged_npz_is_refused_by_name(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, images=np.zeros((9, 9, 9), np.uint8))
    whole = file.read_bytes()
    for damaged in (b"", b"<html>", whole[:100], whole[:-30]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"E160 .*a\.npz`: .*np\.savez"):
            NpzImages(file)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(ValueError, match="one array without a name"):
        NpzImages(tmp_path / "b.npy")
    with pytest.raises(FileNotFoundError, match="gone"):
        NpzImages(tmp_path / "gone.npz")


def write_npy(file, member, shape, held, dtype="|u1", packed=zipfile.ZIP_DEFLATED):
    """Writes an npz whose header promises `shape` and whose member has `held` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(file, "w", packed) as archive:
        archive.writestr(member, header.getvalue() + bytes(held))


@pytest.mark.parametrize("member", ["images.npy", "images"])
@pytest.mark.parametrize("shape", [(10**12, 224, 224), (2**62, 4, 4), (2, 3, 4)])
def test_npz_that_promises_too_much_is_refused_before_it_is_read(
    tmp_path, member, shape
):
    write_npy(tmp_path / "a.npz", member, shape, 48)
    with pytest.raises(ValueError, match=r"E160 .*a\.npz`: .* has 48 bytes of them"):
        NpzImages(tmp_path / "a.npz")


def test_npz_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    write_npy(tmp_path / "a.npz", "images.npy", (1_000, 30, 30), 900_000)
    assert len(NpzImages(tmp_path / "a.npz")) == 1_000
    monkeypatch.setattr(npz, "_SUSPECT", 100_000)
    with pytest.raises(ValueError, match="E161.* would unpack from [0-9,]+ to 900,"):
        NpzImages(tmp_path / "a.npz")
    write_npy(tmp_path / "b.npz", "images.npy", (2, 3, 3), 18, packed=zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="compressed in another way"):
        NpzImages(tmp_path / "b.npz")


def test_npz_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3, 3), np.uint8))
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", full)
    with pytest.raises(ValueError, match=r"E161 .*a\.npz`: it does not fit into mem"):
        NpzImages(tmp_path / "a.npz")


# Parquet files.

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(
    file,
    values,
    labels=None,
    image="image",
    label="label",
    names=None,
    struct=True,
    kind=None,
):
    """Writes a table as `datasets` does."""
    files = [None if value is None else content(value) for value in values]
    if struct:
        column = pa.array([{"bytes": each, "path": "a.png"} for each in files], STRUCT)
    else:
        column = pa.array(files, pa.binary())
    columns = {image: column, "id": pa.array(range(len(values)))}
    if labels is not None:
        columns[label] = pa.array(labels, kind)
    table = pa.table(columns)
    if names:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=2)
    return file


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize(
    ("image", "label"), [("image", "label"), ("img", "fine_label"), ("jpg", "cls")]
)
def test_parquet_gives_rows_of_all_files_in_order(tmp_path, struct, image, label):
    options = {"image": image, "label": label, "struct": struct}
    files = [
        write_parquet(tmp_path / "a.parquet", [1, 2, 3], [0, 1, 2], **options),
        write_parquet(tmp_path / "b.parquet", [4], [1], **options),
    ]
    source = parquet.ParquetImages(files, cache_dir=tmp_path / "cache")
    assert read(source) == [(1, 0), (2, 1), (3, 2), (4, 1)]
    assert read(source) == [(source[i][0][0, 0, 0], source[i][1]) for i in range(-4, 0)]
    with pytest.raises(IndexError, match="no row 4 among 4"):
        source[4]


def test_parquet_reads_boolean_and_absent_labels(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", [1, 2], [True, False])
    assert read(parquet.ParquetImages([file], cache_dir=tmp_path)) == [(1, 1), (2, 0)]
    file = write_parquet(tmp_path / "b.parquet", [1])
    assert read(parquet.ParquetImages([file], cache_dir=tmp_path)) == [(1, -1)]


def test_parquet_says_the_class_names_of_its_metadata(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", [1], [0], names=["cat", "dog"])
    assert parquet.ParquetImages([file], cache_dir=tmp_path).classes == ("cat", "dog")
    file = write_parquet(tmp_path / "b.parquet", [1], [2], names=["cat", "dog"])
    with pytest.raises(ValueError, match="from 2 to 2, expected 0 to 1"):
        parquet.ParquetImages([file], cache_dir=tmp_path)


def test_parquet_is_converted_once_and_again_when_it_changes(tmp_path):
    file, cache = tmp_path / "a.parquet", tmp_path / "cache"
    write_parquet(file, [1, 2], [0, 0])
    parquet.ParquetImages([file], cache_dir=cache).prepare()
    (made,) = cache.iterdir()
    before = made.stat().st_mtime_ns
    assert read(parquet.ParquetImages([file], cache_dir=cache)) == [(1, 0), (2, 0)]
    assert [each.stat().st_mtime_ns for each in cache.iterdir()] == [before]
    write_parquet(file, [1, 2, 5], [0, 0, 0])
    source = parquet.ParquetImages([file], cache_dir=cache)
    assert read(source) == [(1, 0), (2, 0), (5, 0)]


def test_parquet_writes_nothing_before_an_image_is_asked_for(tmp_path):
    file, cache = tmp_path / "a.parquet", tmp_path / "cache"
    names = ["cat", "dog", "owl"]
    write_parquet(file, [3, 1, 2, 4], [0, 1, 0, 1], names=names)
    source = sources.renumbered(
        parquet.ParquetImages([file], cache_dir=cache), ("dog", "cat", "owl"), "x"
    )
    assert (len(source), source.labels.tolist()) == (4, [1, 0, 1, 0])
    shown = sources.glance(source, 64)
    assert [int(image[0, 0, 0]) for image in shown] == [3, 1]  # a group of rows
    same = Arrays(np.full((1, 8, 9, 3), 3, np.uint8))
    (told,) = sources.shared_images({"a": source, "b": same})
    assert "1 of the 2" in told.found
    assert len(sources.fingerprint(source)) == 64
    assert not cache.exists()
    sources.prepare(source)
    assert [each.suffix for each in cache.iterdir()] == [".arrow"]
    assert read(source) == [(3, 1), (1, 0), (2, 1), (4, 0)]


def test_first_images_asked_for_by_many_threads_make_one_copy(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", [*range(20)], [0] * 20)
    source = parquet.ParquetImages([file], cache_dir=tmp_path / "cache")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda i: int(source[i][0][0, 0, 0]), range(20))]
    assert found == [*range(20)]
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_failed_conversion_leaves_nothing(tmp_path, monkeypatch):
    file, cache = write_parquet(tmp_path / "a.parquet", [1], [0]), tmp_path / "cache"
    monkeypatch.setattr(os, "replace", _no_space)
    with pytest.raises(OSError, match="full"):
        parquet.ParquetImages([file], cache_dir=cache).prepare()
    assert not [*cache.iterdir()]


def _no_space(*_):
    raise OSError(28, "full")


@pytest.mark.parametrize("keep", [0, 20, -10])
def test_truncated_parquet_is_refused_by_name(tmp_path, keep):
    file = write_parquet(tmp_path / "a.parquet", [1], [0])
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"E162.*a\.parquet`: no whole parquet"):
        parquet.ParquetImages([file], cache_dir=tmp_path)


def test_damaged_page_of_parquet_is_refused_by_name(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", [1] * 50, [0] * 50)
    damaged = bytearray(file.read_bytes())
    damaged[4:60] = bytes(56)
    file.write_bytes(damaged)
    source = parquet.ParquetImages([file], cache_dir=tmp_path / "cache")
    for use in (source.prepare, lambda: source[0], lambda: source.glance(3)):
        with pytest.raises(ValueError, match=r"E162 .*a\.parquet`: damaged"):
            use()
    assert not [*(tmp_path / "cache").iterdir()]


def test_parquet_names_the_row_without_an_image(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", [1, None], [0, 0], struct=False)
    source = parquet.ParquetImages([file], cache_dir=tmp_path)
    with pytest.raises(ValueError, match="E331 image 1 of .*missing"):
        source[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "pixels"}, r"E344.*'pixels'.*expected images in one of"),
        ({"labels": ["a"], "kind": pa.string()}, "E350.*string, expected class"),
        ({"labels": [None], "kind": pa.int64()}, "E312.*1 rows without a label"),
    ],
)
def test_parquet_refuses_other_columns(tmp_path, options, message):
    file = write_parquet(tmp_path / "a.parquet", [1], **options)
    with pytest.raises(errors.InputError, match=message):
        parquet.ParquetImages([file], cache_dir=tmp_path)


def test_parquet_refuses_numbers_as_images(tmp_path):
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(errors.InputError, match="E350.*int64, expected the bytes"):
        parquet.ParquetImages([tmp_path / "a.parquet"], cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("names", "split", "config"),
    [
        (
            ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"],
            "test",
            None,
        ),
        (["default/test/0000.parquet", "default/test/0001.parquet"], "test", "default"),
        (["cropped_digits/test-00000-of-00001.parquet"], "test", "cropped_digits"),
        (["test.parquet"], "test", None),
        (["data/validation-00000-of-00001-0a1b.parquet"], "validation", None),
    ],
)
def test_files_of_a_split_are_found_as_the_hub_lays_them_out(
    tmp_path, names, split, config
):
    others = (
        "data/train-00000-of-00001.parquet",
        "data/contrast.parquet",
        "x/train/0.parquet",
    )
    for name in (*names, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = parquet.find_files(tmp_path, split, config)
    assert [str(each.relative_to(tmp_path)) for each in found] == names


def test_missing_shards_splits_and_choices_are_refused(tmp_path):
    for name in ("a/test-00000-of-00003.parquet", "a/test-00002-of-00003.parquet"):
        write_parquet(tmp_path / name, [1])
    with pytest.raises(ValueError, match="E164.*lacks 1 of 3 .*number 1"):
        parquet.find_files(tmp_path, "test")
    with pytest.raises(
        ValueError, match="E163.*no parquet file of split 'val'.*test-0"
    ):
        parquet.find_files(tmp_path, "val")
    write_parquet(tmp_path / "b/test-00000-of-00001.parquet", [1])
    with pytest.raises(ValueError, match=r"E165.*\['a', 'b'\]; name one"):
        parquet.find_files(tmp_path, "test")


def write_hub(home, repo, revision="main"):
    """Returns the snapshot folder of a data set, as huggingface_hub keeps it."""
    folder = home / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("0" * 40)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"


def test_hub_data_set_is_read_offline_at_a_revision(hub):
    snapshot = write_hub(hub, "me/set", "refs/convert/parquet")
    write_parquet(snapshot / "default/test/0000.parquet", [8, 9], [1, 0])
    source = parquet.from_hub(
        "me/set@refs/convert/parquet", config="default", offline=True
    )
    assert source.origin == "me/set@" + "0" * 40
    assert read(source) == [(8, 1), (9, 0)]


def test_hub_data_set_that_is_not_there_says_how_to_get_it(hub):
    with pytest.raises(
        FileNotFoundError, match=r"E167 `me/set`.*offline.*experiments.prepare"
    ):
        parquet.from_hub("me/set", offline=True)


# What may be asked of any source.


def test_classes_in_another_order_are_renumbered():
    found = ("angry", "neutral", "sad")
    assert class_order.renumbering(found, ("Angry", "sad", "neutral"), "x") == [0, 2, 1]
    source = Arrays(np.zeros((3, 1, 1), np.uint8), np.arange(3))
    relabelled = Relabelled(source, (0, 2, 1))
    assert [relabelled[i][1] for i in range(3)] == [0, 2, 1]
    assert sources.labels_of(relabelled).tolist() == [0, 2, 1]
    assert relabelled.classes == ()
    source.classes = ("a", "b", "c")
    assert relabelled.classes == ("a", "c", "b")


def test_other_words_for_the_same_classes_are_accepted():
    found, head = ("AnnualCrop", "Forest"), ("annual crop land", "forest")
    assert class_order.renumbering(found, head, "x") == [0, 1]


def test_classes_of_fer2013_are_told_apart():
    folders = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    official = (
        *("['angry']", "['disgusted']", "['fearful']", "['happy', 'smiling']"),
        *("['sad', 'depressed']", "['surprised', 'shocked', 'spooked']"),
        "['neutral', 'bored']",
    )
    expected = [0, 1, 2, 3, 6, 4, 5]
    assert class_order.renumbering(folders, official, "x") == expected
    fusion_bench = ("angry", "disgusted", "fearful", "happy")
    fusion_bench += ("neutral", "sad", "surprised")
    assert class_order.renumbering(fusion_bench, official, "x") == expected
    assert class_order.renumbering(folders, fusion_bench, "x") == [*range(7)]


@pytest.mark.parametrize(
    ("found", "names", "expected"),
    [
        (("annual_crop", "sea lake"), ("Sea Lake", "Annual Crop"), [1, 0]),
        (("dog",), ("cat", "dog", "owl"), [1, 0, 2]),
        (("0", "1", "10", "2"), [*"abcdefghijk"], [0, 1, 10, 2]),
        (("00000", "00001"), ("red", "blue"), [0, 1]),
        (("0", "1"), ("1", "0"), [1, 0]),
        (("c", "c++"), ("c++", "c"), [1, 0]),
    ],
)
def test_folders_are_numbered_by_names_or_numbers(found, names, expected):
    numbers = class_order.folder_numbers(found, names, "x")
    assert numbers[: len(found)] == expected[: len(found)]
    assert sorted(numbers) == [*range(len(names))]


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (("ha", "ki", "o"), ("お", "き", "は")),
        (("1", "2"), ("red", "blue")),
        (("1", "01"), ("red", "blue")),
        (("a_b", "ab"), ("ab", "c")),
        (("fear", "joy"), ("joyful", "fearful")),
        (("C", "c++"), ("c", "c++")),
        (("red", "1"), ("red", "blue")),
    ],
)
def test_folders_of_other_classes_are_refused(found, names):
    with pytest.raises(ValueError, match="E310 `x`: . folders .*name the folders as"):
        class_order.folder_numbers(found, names, "x")


def test_order_on_trust_is_said():
    (told,) = class_order.doubts(("o", "ki", "su"), ("お", "き", "す"), "kana")
    assert (told.code, told.where) == ("W311", "kana")
    assert "0 of 3 class names match" in told.found
    assert "0 is 'o' there, 'お' here" in told.found
    assert not [*class_order.doubts(("AnnualCrop", "x"), ("annual crop", "y"), "z")]
    assert not [*class_order.doubts(("a", "a"), ("a", "a"), "z")]


def test_names_that_occur_twice_are_left_alone():
    assert class_order.renumbering(("a", "a", "b"), ("a", "a", "b"), "x") == [0, 1, 2]
    assert class_order.renumbering(("a", "a", "c"), ("a", "a", "d"), "x") == [0, 1, 2]


def test_classes_that_disagree_are_refused():
    fer = ("angry", "yuck", "neutral", "sad")
    head = ("angry", "disgusted", "sad", "neutral")
    with pytest.raises(ValueError, match="E310 x: .*'neutral' is 2 there, 3 here"):
        class_order.renumbering(fer, head, "x")
    with pytest.raises(ValueError, match="E305 x: 4 classes, expected 3"):
        class_order.renumbering(fer, head[:3], "x")


def test_relabelling_must_be_one_to_one():
    source = Arrays(np.zeros((1, 1, 1), np.uint8), np.array([2]))
    with pytest.raises(ValueError, match="once each"):
        Relabelled(source, (0, 0))
    with pytest.raises(ValueError, match="Label 2 is none of the 2"):
        Relabelled(source, (0, 1))[0]


def test_images_of_two_tasks_are_compared():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    same, other = Arrays(pixels[:10]), Arrays(pixels[10:])
    assert not sources.shared_images({"a": same, "b": other})
    (told,) = sources.shared_images({"a": same, "b": other, "c": Arrays(pixels[:10])})
    assert str(told).startswith("W329 tasks 'a' and 'c': 10 of the 10 images")


def _same_folder(root):
    return ImageFolder(write_folder(root, cat=[1, 2], dog=[3]))


def test_fingerprint_of_a_folder_is_that_of_its_content(tmp_path):
    one = sources.fingerprint(_same_folder(tmp_path / "one"))
    assert one == sources.fingerprint(_same_folder(tmp_path / "two"))
    picture(9).save(tmp_path / "two/cat/001.png")
    assert one != sources.fingerprint(ImageFolder(tmp_path / "two"))
    (tmp_path / "one/cat/002.png").rename(tmp_path / "one/dog/002.png")
    assert one != sources.fingerprint(ImageFolder(tmp_path / "one"))


def test_fingerprint_of_arrays_tells_pixels_labels_and_shape():
    pixels = np.arange(16, dtype=np.uint8)
    seen = [
        Arrays(pixels.reshape(4, 2, 2)),
        Arrays(pixels.reshape(2, 4, 2)),
        Arrays(pixels[::-1].reshape(4, 2, 2)),
        Arrays(pixels.reshape(4, 2, 2), np.arange(4)),
        Arrays(np.zeros((4, 2, 2, 3), np.float16)),
        Relabelled(Arrays(pixels.reshape(4, 2, 2), np.arange(4)), (3, 2, 1, 0)),
        [(np.zeros((2, 2, 3), np.uint8), 0)] * 4,
    ]
    assert len({*map(sources.fingerprint, seen)}) == len(seen)


def test_fingerprint_of_parquet_is_that_of_its_files(tmp_path):
    for name, values in {"a": [1, 2], "b": [1, 2], "c": [1, 3]}.items():
        write_parquet(tmp_path / name / "test.parquet", values, [0, 1])
    prints = [
        sources.fingerprint(parquet.ParquetImages([tmp_path / name / "test.parquet"]))
        for name in "abc"
    ]
    assert prints[0] == prints[1] != prints[2]


def test_fingerprint_reads_parts_of_a_large_file(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(bytes(5 * 2**20))
    before = sources.file_content(file)
    with open(file, "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")
    assert sources.file_content(file) != before


# Registered data sets.


@pytest.fixture
def tiny_registry(monkeypatch):
    """Lets RenderedSST2 have three test images."""
    for profile in registry.PROFILES:
        table = registry._TABLES[profile]
        small = table["RenderedSST2"]._replace(test_sizes=(3,))
        monkeypatch.setitem(table, "RenderedSST2", small)


@pytest.mark.parametrize("name", ["RenderedSST2", "rendered-sst2", "rendered_sst2"])
@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_load_finds_own_data(tmp_path, tiny_registry, name, kind):
    root = tmp_path / "data" / name
    root.mkdir(parents=True)
    if kind == "npz":
        images = np.repeat(np.array([1, 2, 3], np.uint8), 16).reshape(3, 4, 4)
        np.savez(root / "test.npz", images=images, labels=np.array([0, 0, 1]))
    elif kind == "folder":
        write_folder(root / "test", negative=[1, 2], positive=[3])
    else:
        write_parquet(root / "data/test-00000-of-00001.parquet", [1, 2, 3], [0, 0, 1])
    source = loading.load(
        "RenderedSST2", data_dir=tmp_path / "data", cache_dir=tmp_path
    )
    assert read(source) == [(1, 0), (2, 0), (3, 1)]


def test_load_renumbers_by_the_names_of_the_head(tmp_path, tiny_registry):
    root = tmp_path / "RenderedSST2"
    names = ["positive", "negative"]
    write_parquet(root / "test.parquet", [1, 2, 3], [0, 0, 1], names=names)
    source = loading.load(
        "rendered-sst2",
        data_dir=tmp_path,
        classes=("negative", "positive"),
        cache_dir=tmp_path,
    )
    assert read(source) == [(1, 1), (2, 1), (3, 0)]


def test_load_numbers_folders_as_the_head_does(tmp_path, tiny_registry):
    root = tmp_path / "RenderedSST2/test"
    classes = ("positive", "negative")
    write_folder(root, negative=[1, 2], positive=[3])
    source = loading.load("rendered-sst2", data_dir=tmp_path, classes=classes)
    assert read(source) == [(1, 1), (2, 1), (3, 0)]
    assert (source.classes, source.warnings) == (classes, [])
    (root / "negative").rename(root / "bad")
    with pytest.raises(ValueError, match="only there: 'bad'; only in the head: 'neg"):
        loading.load("rendered-sst2", data_dir=tmp_path, classes=classes)


@pytest.mark.parametrize(
    "classes", [None, [f"sign {'abcdefghijkl'[i]}" for i in range(12)]]
)
def test_load_reads_names_of_folders_as_numbers(tmp_path, monkeypatch, classes):
    table = registry._TABLES["official"]
    small = table["GTSRB"]._replace(test_sizes=(12,), num_classes=12)
    monkeypatch.setitem(table, "GTSRB", small)
    write_folder(tmp_path / "gtsrb/test", **{str(i): [i] for i in range(12)})
    source = loading.load("GTSRB", data_dir=tmp_path, classes=classes)
    assert sorted(read(source)) == [(i, i) for i in range(12)]


def test_load_warns_of_an_order_on_trust(tmp_path, tiny_registry):
    root = tmp_path / "RenderedSST2"
    write_parquet(root / "test.parquet", [1, 2, 3], [0, 0, 1], names=["xx", "yy"])
    source = loading.load(
        "rendered-sst2",
        data_dir=tmp_path,
        classes=("negative", "positive"),
        cache_dir=tmp_path,
    )
    assert source.warnings[0].where == "RenderedSST2 from local"
    assert "0 of 2 class names match" in source.warnings[0].found


def test_warnings_of_a_source_reach_the_task(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_parquet(tmp_path / "set/test.parquet", [1, 2], [0, 1], names=["xx", "yy"])
    data = Data(parquet=str(tmp_path / "set"))
    source, warnings = task_images.open_images(data, ["a", "b"], "official", None, True)
    assert source.labels.tolist() == [0, 1]
    (told,) = warnings
    assert "0 of 2 class names" in told.found
    assert not (tmp_path / "cache").exists()


def test_load_warns_of_an_unchecked_row_that_names_no_class(hub, tiny_registry):
    snapshot = write_hub(hub, "nateraw/rendered-sst2", "refs/convert/parquet")
    file = snapshot / "default/test/0000.parquet"
    write_parquet(file, [1, 2, 3], [0, 1, 1])
    classes = ("negative", "positive")
    source = loading.load("RenderedSST2", offline=True, classes=classes)
    (told,) = sources.warnings_of(source)
    assert str(told).startswith("W311 `nateraw/rendered-sst2`: it does not name its cl")
    write_parquet(file, [1, 2, 3], [0, 1, 1], names=[*classes])
    source = loading.load("RenderedSST2", offline=True, classes=classes)
    assert sources.warnings_of(source) == []


@pytest.mark.parametrize("offline", [True, False])
def test_hub_out_of_reach_is_told_as_no_network(monkeypatch, offline):
    def fail(*_, **__):
        raise failures.LocalEntryNotFoundError("An error happened")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        FileNotFoundError, match="cannot be reached.*no network"
    ) as info:
        parquet.from_hub("me/set", offline=offline)
    assert ("`offline`" in str(info.value)) == offline
    assert "forbids" not in str(info.value)


def test_load_reads_the_hub_offline(hub, tiny_registry):
    snapshot = write_hub(hub, "nateraw/rendered-sst2", "refs/convert/parquet")
    write_parquet(snapshot / "default/test/0000.parquet", [1, 2, 3], [0, 1, 1])
    source = loading.load("RenderedSST2", offline=True)
    assert read(source) == [(1, 0), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "E316.*has 2 images, expected 3"),
        ([0, 1, 2], "E313.*from 0 to 2, expected 0 to 1"),
    ],
)
def test_load_checks_size_and_labels(tmp_path, tiny_registry, labels, message):
    root = tmp_path / "RenderedSST2"
    write_parquet(root / "test.parquet", [5] * len(labels), labels)
    with pytest.raises(ValueError, match=message):
        loading.load("RenderedSST2", data_dir=tmp_path, cache_dir=tmp_path)


def test_load_lists_all_places_where_it_looked(tmp_path, hub):
    with pytest.raises(FileNotFoundError) as caught:
        loading.load("svhn", data_dir=tmp_path, offline=True)
    for part in (
        "E315",
        "local:",
        "tfds:",
        "hub:",
        "experiments.prepare --dataset svhn",
    ):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError, match="72 pixels"):
        loading.load("gtsrb", data_dir=tmp_path, kind="tfds")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "svnh"}, errors.InputError, "E314.*did you mean 'SVHN'"),
        ({"name": "svhn", "kind": "hubb"}, ValueError, "`kind`"),
        ({"name": "svhn", "split": "val"}, ValueError, "`split`"),
        ({"name": "svhn", "profile": "mine"}, KeyError, "`profile`"),
    ],
)
def test_load_refuses_unknown_names(options, error, message):
    with pytest.raises(error, match=message):
        loading.load(**options)
