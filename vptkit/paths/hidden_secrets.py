"""Passwords and tokens in addresses and pipelines, hidden before anybody sees them."""

from __future__ import annotations

import re

__all__ = ["redacted", "without_secrets"]

_HIDDEN = "***"
# From :// to the last @ of the word: a password may hold /, ? and @ of its own.
_USER = re.compile(r"(://)([^\s\"'<>]*)@")
_PRIVATE_KEY = (
    r"[\w.-]*(?:pass|pwd|pw|token|secret|key|auth|sig|signature|credential|user|login|session|access)"
    r"[\w.-]*"
)
_PRIVATE_VALUE = re.compile(
    rf"(?<![\w.-])({_PRIVATE_KEY}\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s&;#!\"']+)", re.IGNORECASE
)


def redacted(text: str) -> str:
    """A text with user names, passwords and tokens hidden: of URLs, their queries, and pipelines.

    Rather one word too much than a password: an @ in a path hides what stands before it.
    """
    return _PRIVATE_VALUE.sub(rf"\1{_HIDDEN}", _USER.sub(rf"\1{_HIDDEN}@", text))


def without_secrets(message: str, source: str) -> str:
    """A library's message on a source, without what is secret in the source's text.

    Args:
        message: of FFmpeg, GStreamer or fsspec, which may repeat URLs, or parts of them decoded.
        source: as it was written.
    """
    from urllib.parse import unquote

    secrets = [part for match in _USER.findall(source) for part in match[1].split(":", 1)]
    secrets += [match[1].strip("\"'") for match in _PRIVATE_VALUE.findall(source)]
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if len(secret) > 2:  # shorter ones are in every word; what holds them is no URL
            message = message.replace(secret, _HIDDEN)
    return redacted(message)
