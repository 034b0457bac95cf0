import hashlib

import numpy as np
import pytest

from adarank_jax.data.embedded import glyphs, photographs, pretraining, tasks

SMALL = 60


def hashes(images):
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


@pytest.mark.parametrize("name", tasks.TASKS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_render_is_a_pure_function_of_task_and_split(name, split):
    one, two = tasks.render(name, split, SMALL), tasks.render(name, split, SMALL)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("name", tasks.TASKS)
def test_render_makes_small_colour_images_of_every_class(name):
    images, labels = tasks.render(name, "test", SMALL)
    assert images.dtype == np.uint8
    assert images.shape == (SMALL, 32, 32, 3)
    assert set(labels) == set(range(len(tasks.TASKS[name].classes)))
    assert images.std(axis=(1, 2, 3)).min() > 2.0


def test_suite_has_eight_tasks_of_sufficient_size():
    assert len(tasks.TASKS) >= 8
    for name in tasks.TASKS:
        assert tasks.TASKS[name].sizes["test"] >= 500
        assert tasks.TASKS[name].sizes["train"] >= 2000


@pytest.mark.parametrize("name", tasks.TASKS)
def test_splits_share_no_image(name):
    train, _ = tasks.render(name, "train", 800)
    test, _ = tasks.render(name, "test", 400)
    # Black corners of two photographs are black in either half.
    test = [image for image in test if image.any()]
    assert not set(hashes(train)) & set(hashes(test))


def test_digit_splits_share_no_scan():
    for label in range(10):
        scans = hashes(tasks._mnist_images(label))
        assert not set(scans[:350]) & set(scans[350:])


def test_letter_faces_are_split():
    for faces in (tasks._LETTER_FACES, tasks._GREEK_FACES):
        assert not set(faces["train"]) & set(faces["test"])


def test_surface_regions_are_split():
    train, test = tasks._SURFACE_BANDS["train"], tasks._SURFACE_BANDS["test"]
    assert train[0] < train[1] < test[0] < test[1]


def test_pretraining_shares_no_photograph_with_the_tasks():
    assert not set(pretraining._PHOTOGRAPHS) & set(tasks._SURFACES)


def test_pretraining_shares_no_character_with_the_tasks():
    used = set(tasks._LETTERS + tasks._GREEK + "0123456789")
    assert used <= set(pretraining._TASK_CHARACTERS)
    assert not {character for _, character in pretraining._characters()} & used


def test_pretraining_shares_no_image_with_the_tasks():
    images, _ = pretraining.render(range(1500), 0)
    known = set(hashes(images))
    for name in tasks.TASKS:
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
