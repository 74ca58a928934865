"""What a command that fails says."""

from __future__ import annotations


def assert_error(result: tuple[int, str, str], code: int, *parts: str) -> None:
    """The last line of standard error is the error; there is no traceback and no document."""
    assert result[0] == code
    last = result[2].splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last
    assert "Traceback" not in result[2]
