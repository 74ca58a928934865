"""Who may ask, and who may change adapters: tokens of files, as `Authorization: Bearer TOKEN`.

Without tokens only this machine is listened to, and only under its own names: a page in a browser
that made its name an address of this machine (DNS rebinding) is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError
from vptkit.regular_files import read_regular
from vptkit.runtime.serving.http_error import HttpError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Access", "access_of", "is_loopback", "read_tokens"]

_LEAST, _MOST_BYTES = 16, 1 << 16  # letters of a token; bytes of a file
_OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Access:
    """What is asked of a request.

    Attributes:
        users, admins: SHA-256 of tokens. Without users everybody may ask; without admins nobody may
            change adapters. An admin's token is a user's, too.
        own_names_only: the header Host has to be a name of this machine.
    """

    users: tuple[bytes, ...] = field(default=(), repr=False)
    admins: tuple[bytes, ...] = field(default=(), repr=False)
    own_names_only: bool = False

    def require_user(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that may ask.

        Raises:
            HttpError: 401: no token, or an unknown one; 403: another host's name.
        """
        if self.own_names_only:
            _require_own_name(headers.get("host", ""))
        if self.users:
            _require(headers, (*self.users, *self.admins), "a token of --token-file")

    def require_admin(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that may change adapters.

        Raises:
            HttpError: 401: no token, or an unknown one; 403: there is none, or another host's name.
        """
        if self.own_names_only:
            _require_own_name(headers.get("host", ""))
        if not self.admins:
            raise HttpError(
                403,
                "adapters cannot be changed over HTTP here: the server was started without "
                "--admin-token-file",
            )
        _require(headers, self.admins, "a token of --admin-token-file")


def access_of(
    host: str, token_file: Path | None, admin_token_file: Path | None, *, open_to_all: bool
) -> Access:
    """What a server asks for, by the options that it was started with.

    Raises:
        VptkitError: others could ask without a token, and --open does not say so; or see
            `read_tokens`.
    """
    users = read_tokens(token_file) if token_file is not None else ()
    admins = read_tokens(admin_token_file) if admin_token_file is not None else ()
    if users and open_to_all:
        raise VptkitError("--open: everybody may ask, so --token-file has no use: pass one of them")
    if not is_loopback(host) and not users and not open_to_all:
        raise VptkitError(
            f"--host {host}: other machines could ask. Pass --token-file FILE, with one token a line, "
            "or --open if everybody may."
        )
    return Access(users, admins, own_names_only=not users and not open_to_all)


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """The digests of the tokens of a file, one a line; empty lines and lines that begin with # are none.

    Raises:
        VptkitError: it cannot be read, holds no token, or one that is short or not of ASCII.
    """
    lines = read_regular(path, VptkitError, limit=_MOST_BYTES).splitlines()
    tokens = [one for line in lines if (one := line.strip()) and not one.startswith(b"#")]
    if not tokens:
        raise VptkitError(
            f"{path}: no token, expected one a line, as openssl rand -hex 32 writes it"
        )
    for i, token in enumerate(tokens, 1):
        if len(token) < _LEAST or not all(33 <= letter < 127 for letter in token):
            raise VptkitError(
                f"{path}: token {i} is short or has odd letters, expected {_LEAST} or more of ASCII "
                "without spaces, as openssl rand -hex 32 writes them"
            )
    return tuple(hashlib.sha256(token).digest() for token in tokens)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require(headers: Mapping[str, str], known: tuple[bytes, ...], what: str) -> None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
    found = [hmac.compare_digest(digest, one) for one in known]  # all, so that time tells nothing
    if kind.lower() != "bearer" or not any(found):
        raise HttpError(401, f"expected the header Authorization: Bearer TOKEN, with {what}")


def _require_own_name(host: str) -> None:
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in _OWN_NAMES:
        raise HttpError(
            403,
            f"the host {host[:100]!r} is not a name of this machine: ask http://127.0.0.1, or start the "
            "server with --token-file or --open",
        )
