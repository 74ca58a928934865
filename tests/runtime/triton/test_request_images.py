from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vptkit.errors import DataError
from vptkit.images.preprocess import prepare
from vptkit.runtime.triton.request_images import Decoder


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def decoder(tiny_model):
    made = Decoder(tiny_model.preprocess, 2)
    yield made
    made.close()


def test_requests_are_decoded_together_and_fail_alone(decoder, tiny_model):
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    good = encoded(picture)
    requests = [[good, good], [good, good[:50]], [], [b""], [b"text"], [good]]
    two, cut, none, empty, text, one = decoder.decode(requests)
    expected = prepare(picture, tiny_model.preprocess)
    np.testing.assert_array_equal(two, np.stack([expected, expected]))
    np.testing.assert_array_equal(one, expected[None])
    assert none.shape == (0, 24, 16, 3)
    for found, words in ((cut, r"image\[1\]: the image is broken"), (empty, "empty, expected")):
        assert isinstance(found, DataError)
        with pytest.raises(DataError, match=words):
            raise found
    assert "not an image that Pillow can read" in str(text)


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_decoded(decoder):
    bomb = encoded(Image.new("1", (10_000, 9_000)))
    (found,) = decoder.decode([[bomb]])
    assert isinstance(found, DataError)
    assert "pixels" in str(found)
