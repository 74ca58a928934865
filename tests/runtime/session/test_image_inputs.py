"""What `predict` takes, and what it says of everything else."""

from __future__ import annotations

import io
from collections import deque

import numpy as np
import PIL
import pytest
from PIL import Image

from vptkit.errors import DataError
from vptkit.runtime.session.factory import open_session
from vptkit.runtime.session.image_inputs import HeldImage, inputs_of, is_live

RED, GREEN, BLUE = (np.zeros((30, 20, 3), np.uint8) for _ in range(3))
for channel, plain in enumerate((RED, GREEN, BLUE)):
    plain[..., channel] = 200


@pytest.fixture
def session(make_bundle):
    return open_session(make_bundle(), "cpu", 1)


def labels(session, sources, **options):
    return [prediction.label for prediction in session.predict(sources, **options)]


@pytest.mark.parametrize("make", [str, lambda p: p, lambda p: [str(p)], lambda p: (p,)])
def test_a_folder_a_file_and_a_glob_as_text_or_path(session, colour_folders, make):
    folder = colour_folders / "red"
    assert labels(session, make(folder)) == ["red"] * 4
    assert labels(session, make(folder / "0.png")) == ["red"]
    assert labels(session, make(folder / "[01].png")) == ["red"] * 2


def test_arrays_images_and_files_mixed_in_the_order_in_which_they_stand(session, colour_folders):
    file = colour_folders / "red" / "1.png"
    batch = np.stack([BLUE, GREEN])
    mixed = [GREEN, Image.fromarray(BLUE), str(file), batch, colour_folders / "blue", file]
    found = list(session.predict(mixed))
    assert [p.label for p in found] == ["green", "blue", "red", "blue", "green", *["blue"] * 4]
    assert [p.index for p in found] == list(range(9))
    assert [p.path for p in found[:5]] == [None, None, file, None, None]
    assert [p.source for p in found[:3]] == ["images[0]", "images[1]", str(file)]
    assert found[0].to_json()["path"] is None
    assert found[3].to_json()["index"] == 3


def test_an_array_a_batch_and_lists_of_them_are_answered_alike(session):
    for one in (RED, RED[None], [RED], [RED[None]], Image.fromarray(RED), deque([RED])):
        (prediction,) = session.predict(one)
        assert prediction.label == "red"
    assert labels(session, np.stack([RED, GREEN, BLUE])) == ["red", "green", "blue"]


def test_an_array_is_prepared_as_its_file_would_be(session, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 41, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    views = np.asfortranarray(pixels), np.pad(pixels, ((1, 1), (0, 0), (0, 0)))[1:-1]
    pixels.flags.writeable = False
    answers = session.predict([tmp_path / "a.png", pixels, *views, Image.fromarray(pixels)])
    first, *others = [prediction.logits for prediction in answers]
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1", "F", "YCbCr"])
def test_an_image_of_any_mode_is_taken_as_its_file_is(session, tmp_path, mode):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40), np.uint8))
    image = (image if mode == "I;16" else image.convert("RGB")).convert(mode)
    path = tmp_path / f"a.{'tif' if mode in ('CMYK', 'F', 'YCbCr', 'LA') else 'png'}"
    image.save(path)
    before = image.copy(), dict(image.info)
    held, from_file = session.predict([image, path])
    if mode == "YCbCr" and from_file.error:
        pytest.skip(f"Pillow {PIL.__version__} writes TIFF of YCbCr and reads none")
    np.testing.assert_array_equal(held.logits, from_file.logits)
    assert (image, dict(image.info)) == before


def test_orientation_and_transparency_of_a_held_image_stay_its_own(session, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.concatenate([RED, BLUE], axis=1)).quantize(8)
    image.save(tmp_path / "a.png", exif=exif, transparency=0)
    with Image.open(tmp_path / "a.png") as opened:
        held, from_file = session.predict([opened, tmp_path / "a.png"])
        assert opened.info["transparency"] == 0
        assert opened.size == (40, 30)
    np.testing.assert_array_equal(held.logits, from_file.logits)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (RED.astype(np.float32) / 255, r"float32 \[30, 20, 3\].*\(255 \* x\)"),
        (RED.astype(np.int64), r"int64 \[30, 20, 3\], expected uint8"),
        (RED > 0, "bool"),
        (RED[..., 0], r"uint8 \[30, 20\].*np.stack"),
        (RED[..., :1], r"uint8 \[30, 20, 1\].*np.stack"),
        (np.zeros((30, 20, 4), np.uint8), r"alpha channel: x\[..., :3\]"),
        (RED.transpose(2, 0, 1), r"uint8 \[3, 30, 20\].*np.moveaxis"),
        (RED.transpose(2, 0, 1)[None], r"\[1, 3, 30, 20\].*np.moveaxis"),
        (RED[None, None], r"uint8 \[1, 1, 30, 20, 3\]"),
        (np.uint8(3) + np.zeros((), np.uint8), r"uint8 |came as uint8"),
        (RED[:0], "20 x 0 pixels"),
        (np.broadcast_to(np.uint8(0), (10**5, 10**5, 3)), "100000 x 100000 pixels"),
        (np.array(["a.jpg"]), "as a list"),
        (None, "NoneType"),
        (3, "int"),
        (b"\x89PNG", "bytes.*PIL.Image.open"),
        (bytearray(3), "bytearray"),
        (io.BytesIO(b"x"), "BytesIO.*PIL.Image.open"),
        ({"a": RED}, r"dict \['a'\]"),
        ("", "the empty text"),
    ],
)
def test_what_is_no_image_is_refused_with_its_cure(session, wrong, said):
    for sources in (wrong, [wrong], [RED, wrong], iter([wrong])):
        with pytest.raises(DataError, match=said):
            list(session.predict(sources))


def test_lists_in_lists_tensors_and_nothing_are_refused(session):
    class Tensor:
        shape, dtype = (30, 20, 3), "torch.uint8"

        def __iter__(self):
            return iter([])

    with pytest.raises(DataError, match=r"images\[0\]: came as list, .* not lists in a list"):
        session.predict([[RED]])
    with pytest.raises(DataError, match=r"came as Tensor, .*x.numpy"):
        session.predict(Tensor())
    for nothing in ([], (), RED[None][:0]):
        with pytest.raises(DataError, match=r"no sources|no images"):
            session.predict(nothing)
    assert list(session.predict(iter([]))) == []


def test_a_wrong_one_in_a_list_is_refused_before_anything_is_answered(session):
    with pytest.raises(DataError, match=r"images\[2\]"):
        session.predict([RED, GREEN, None])


def test_a_closed_image_is_an_error_of_its_own_and_the_others_go_on(session, tmp_path):
    Image.fromarray(RED).save(tmp_path / "a.png")
    broken = Image.open(tmp_path / "a.png")
    broken.close()
    first, second, third = session.predict([RED, broken, BLUE])
    assert (first.label, second.label, third.label) == ("red", None, "blue")
    assert second.error.startswith("images[1]: ")
    assert second.score is second.logits is None


def test_frames_of_a_camera_are_answered_one_by_one(session):
    """For ever, from one buffer, each before the next one is taken."""
    taken = []

    def camera():
        buffer = np.zeros_like(RED)
        while True:
            buffer[:] = (RED, GREEN, BLUE)[len(taken) % 3]
            taken.append(1)
            yield buffer

    assert is_live(camera())
    stream = session.predict(camera())
    assert taken == []
    for number, expected in enumerate(["red", "green", "blue", "red"], start=1):
        prediction = next(stream)
        assert (prediction.label, prediction.index, len(taken)) == (expected, number - 1, number)
    stream.close()


def test_frames_of_a_camera_in_batches(session):
    frames = [RED, GREEN, BLUE, RED, RED]
    assert labels(session, iter(frames), batch=2) == ["red", "green", "blue", "red", "red"]


def test_frames_of_a_fixed_batch_bundle_are_not_waited_for(make_bundle):
    session = open_session(make_bundle(batch=4), "cpu", 1)
    frames = iter([RED, GREEN])
    stream = session.predict(frames)
    assert next(stream).label == "red"
    np.testing.assert_array_equal(next(frames), GREEN)


def test_paths_that_come_one_by_one(session, colour_folders):
    """The same name again is another image; one that is missing does not end the others."""
    file = colour_folders / "red" / "0.png"
    found = list(session.predict(iter([file, "nowhere.png", file, colour_folders / "blue"])))
    assert [p.label for p in found] == ["red", None, "red", *["blue"] * 4]
    assert "nowhere.png" in found[1].error


def test_of_what_is_there_as_a_whole_each_file_is_taken_once(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.touch()
    assert inputs_of([paths[0], str(tmp_path)]) == paths
    assert inputs_of([RED, paths[0], tmp_path])[1:] == paths
    assert isinstance(inputs_of(RED)[0], HeldImage)
