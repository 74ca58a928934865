from __future__ import annotations

import pytest

from vptkit.paths.hidden_secrets import redacted, without_secrets


def test_a_librarys_message_may_hold_them_decoded():
    source = "rtsp://joe:s%40cret@h/x"
    assert without_secrets("no s@cret for joe at rtsp://joe:s%40cret@h", source) == (
        "no *** for *** at rtsp://***@h"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "https://h/x.jpg?X-Amz-Signature=ab12&X-Amz-Date=1",
            "https://h/x.jpg?X-Amz-Signature=***&X-Amz-Date=1",
        ),
        ("https://joe:pw@h/x", "https://***@h/x"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_of_addresses(text, shown):
    assert redacted(text) == shown
