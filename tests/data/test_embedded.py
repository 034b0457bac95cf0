import hashlib
import inspect

import numpy as np
import pytest

from adarank_jax.data.embedded import glyphs, photographs, pretraining, tasks

SMALL = 60


def hashes(images):
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


@pytest.mark.parametrize("name", tasks.SUITE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_render_is_a_pure_function_of_task_and_split(name, split):
    one, two = tasks.render(name, split, SMALL), tasks.render(name, split, SMALL)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("name", tasks.SUITE)
def test_render_makes_small_colour_images_of_every_class(name):
    images, labels = tasks.render(name, "test", SMALL)
    assert images.dtype == np.uint8
    assert images.shape == (SMALL, 32, 32, 3)
    assert set(labels) == set(range(len(tasks.TASKS[name].classes)))
    assert images.std(axis=(1, 2, 3)).min() > 2.0


def test_suite_has_eight_tasks_of_sufficient_size():
    assert len(tasks.SUITE) >= 8
    for name in tasks.SUITE:
        assert tasks.TASKS[name].sizes["test"] >= 500
        assert tasks.TASKS[name].sizes["train"] >= 2000 or name == "digits"


@pytest.mark.parametrize("name", tasks.SUITE)
def test_splits_share_no_image(name):
    train, _ = tasks.render(name, "train", 800)
    test, _ = tasks.render(name, "test", 400)
    assert len(set(hashes(train))) == len(train)
    assert not set(hashes(train)) & set(hashes(test))


def test_digit_splits_share_no_scan():
    for images_of, train, test in (
        (tasks._mnist_images, 350, 150),
        (tasks._digit_images, 120, 54),
    ):
        for label in range(10):
            scans = hashes(images_of(label)[: train + test])
            assert not set(scans[:train]) & set(scans[train:])


def test_letter_faces_are_split():
    for faces in (tasks._LETTER_FACES, tasks._GREEK_FACES, tasks._OPERATOR_FACES):
        assert not set(faces["train"]) & set(faces["test"])


def test_surface_regions_are_split():
    source = inspect.getsource(tasks._surfaces)
    assert '"train": (0.0, 0.62)' in source
    assert '"test": (0.68, 1.0)' in source


def test_pretraining_shares_no_photograph_with_the_tasks():
    assert not set(pretraining._PHOTOGRAPHS) & set(tasks._SURFACES)


def test_pretraining_shares_no_character_with_the_tasks():
    used = set(tasks._LETTERS + tasks._GREEK + tasks._OPERATORS + "0123456789")
    assert used <= set(pretraining._TASK_CHARACTERS)
    assert not {character for _, character in pretraining._characters()} & used


def test_pretraining_shares_no_image_with_the_tasks():
    images, _ = pretraining.render(range(1500), 0)
    known = set(hashes(images))
    for name in tasks.SUITE:
        assert not known & set(hashes(tasks.render(name, "test", 100)[0]))


def test_pretraining_images_do_not_depend_on_the_range():
    whole, labels = pretraining.render(range(20), 0)
    part, part_labels = pretraining.render(range(12, 20), 0)
    np.testing.assert_array_equal(whole[12:], part)
    np.testing.assert_array_equal(labels[12:], part_labels)


def test_photograph_names_where_it_looked():
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        photographs.photograph("nowhere.png")


def test_is_drawn_tells_letters_from_empty_boxes():
    (face,) = glyphs.faces("DejaVuSans")
    assert glyphs.is_drawn(face, "A")
    assert not glyphs.is_drawn(face, "\U0001f9ff")
