from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.runtime.triton.test_request_images import encoded
from tests.support.bank_cases import family
from tests.support.exported_banks import export_family
from vptkit.errors import BundleError, DataError, TargetError
from vptkit.export.bank.edit_bank import add, remove
from vptkit.runtime import open_session
from vptkit.runtime.triton.batch_answers import BatchAnswers, Request, labelled

KINDS = ("both", "linear")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank")
    export_family(path, family(kinds=KINDS))
    return path


@pytest.fixture(scope="module")
def answers(folder):
    made = BatchAnswers(open_session(folder / "bank.vptk", "cpu", threads=1), 1)
    yield made
    made.close()


def texts(*names):
    return np.array([[name.encode()] for name in names], dtype=object)


def files(*images):
    return np.array([[encoded(image)] for image in images], dtype=object)


def test_requests_of_several_adapters_are_one_run(answers, monkeypatch):
    images = family(kinds=KINDS).case.images
    calls = []
    session = answers.session
    real = type(session).answers
    monkeypatch.setattr(
        type(session), "answers", lambda s, *a: calls.append(len(a[0])) or real(s, *a)
    )
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    found = answers.answer(
        [
            Request(images=images[:2], adapter=texts("linear", "both")),
            Request(images=images[:1], adapter=texts("other")),
            Request(image=files(picture), adapter=texts("both")),
            Request(image=np.array([[b"no image"]], dtype=object), adapter=texts("both")),
            Request(images=images[:2], adapter_index=np.int32([[0], [1]])),
            Request(images=images[:1], named="linear"),
        ]
    )
    assert calls == [6]
    mixed, unknown, decoded, broken, numbered, named = found
    expected = session.run(images[:2], ["linear", "both"])
    own = np.isfinite(expected)
    np.testing.assert_allclose(mixed["logits"][own], expected[own], rtol=1e-5, atol=1e-5)
    assert (mixed["logits"][~own] == np.finfo(np.float32).min).all()
    assert not own.all()
    assert isinstance(unknown, BundleError)
    assert "no adapter 'other', only both, linear" in str(unknown)
    assert isinstance(broken, DataError)
    (expected,) = session.predict(picture, adapter="both")
    assert decoded["label"][0] == expected.label
    assert decoded["score"][0] == pytest.approx(expected.score, abs=1e-5)
    assert numbered["label"][0] in session.labels_of("both")
    np.testing.assert_allclose(
        numbered["logits"][1, :3], session.run(images[1:2], "linear")[0], atol=1e-4
    )
    np.testing.assert_allclose(named["logits"][0], mixed["logits"][0], atol=1e-5)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(), "neither of the inputs"),
        (Request(image=files(), images=np.zeros((1, 16, 24, 3), np.uint8)), "both of the inputs"),
        (Request(images=np.zeros((1, 8, 8, 3), np.uint8), named="both"), r"expected uint8 \[B, 16"),
        (Request(images=np.zeros((2, 16, 24, 3), np.uint8), adapter=texts("both")), "1 came for 2"),
        (
            Request(images=np.zeros((1, 16, 24, 3), np.uint8), adapter=texts("both"), named="both"),
            "adapters came twice",
        ),
        (Request(images=np.zeros((1, 16, 24, 3), np.uint8)), "holds 2 adapters.*name one"),
        (
            Request(images=np.zeros((1, 16, 24, 3), np.uint8), adapter_index=np.int32([2])),
            "2 came, expected 0 to 1",
        ),
        (
            Request(images=np.zeros((1, 16, 24, 3), np.uint8), adapter=np.array([b"\xff"], object)),
            "not UTF-8",
        ),
    ],
)
def test_bad_requests(answers, request_, words):
    (error,) = answers.answer([request_])
    with pytest.raises((DataError, BundleError), match=words):
        raise error


def test_a_run_that_fails_is_tried_again_request_by_request(answers, monkeypatch):
    images = family(kinds=KINDS).case.images
    real = type(answers.session).answers

    def answer(session, images, adapter):
        if len(images) > 1 or adapter == ["both"]:
            raise TargetError("out of memory")
        return real(session, images, adapter)

    monkeypatch.setattr(type(answers.session), "answers", answer)
    one, two = answers.answer(
        [Request(images=images[:1], named=name) for name in ("both", "linear")]
    )
    assert isinstance(one, TargetError)
    assert two["logits"].shape == (1, 5)


def test_an_answer_that_is_not_finite_is_an_error_of_its_own_request(answers, monkeypatch):
    images = family(kinds=KINDS).case.images
    real = type(answers.session).answers

    def answer(session, images, adapter):
        found = real(session, images, adapter)
        found["logits"][0, 0] = np.nan
        return found

    monkeypatch.setattr(type(answers.session), "answers", answer)
    bad, good = answers.answer([Request(images=images[:1], named="both")] * 2)
    assert "hold NaN or Inf" in str(bad)
    assert good["label"].shape == (1,)


def test_a_bank_that_is_edited_answers_with_the_new_set(answers, folder):
    images = family(kinds=KINDS).case.images
    bank = folder / "bank.vptk"
    asked = [Request(images=images, named="new")]
    assert isinstance(answers.answer(asked)[0], BundleError)
    add(bank, folder / "linear.safetensors", name="new")
    (new,) = answers.answer(asked)
    np.testing.assert_allclose(
        new["logits"][:, :3], answers.session.run(images, "linear"), atol=1e-5
    )
    remove(bank, "new")
    assert isinstance(answers.answer(asked)[0], BundleError)


def test_labels_that_do_not_exclude_each_other(answers):
    """As a graph of several labels gives them: a probability each, and columns of other adapters."""
    outputs = {
        "logits": np.float32([[0, 2, 1, np.nan, np.nan]]),
        "scores": np.float32([[0.5, 0.9, 0.7, np.nan, np.nan]]),
    }
    found = labelled(outputs, ["linear"], answers.session.bundle)
    assert list(found["label"]) == ["linear 1"]
    assert found["score"] == pytest.approx([0.9])
    assert found["scores"].tolist()[0][3:] == [0, 0]
    assert np.isnan(outputs["scores"][0, 3])
