"""What this user built on this machine, told from what came from elsewhere: a keyed digest.

Engines and kernel times are read by native code, and an engine *is* native code, so neither is
believed for lying in the right folder. Whoever builds them seals them with a random key of 32 bytes
that lies in the user's configuration folder, mode 0600, and with the machine's id. A bundle that
was copied from another machine, or that somebody else made, has no such seal. Root believes the
seals of whoever became root by sudo, who measures power modes with engines built before.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pwd
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import OutputError
from vptkit.private_files import (
    create_private,
    open_private,
    private_folder,
    sudo_user,
    user_folder,
)
from vptkit.regular_files import read_bounded
from vptkit.strict_json import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEY", "is_sealed", "make_key", "seal", "sealed_content", "with_seal"]

KEY = "vptkit/engine.key"  # below the user's configuration folder
_BYTES = 32
_MACHINE = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_REMEDY = "Set XDG_CONFIG_HOME to a folder of your own that can be written."


def make_key() -> None:
    """Make the key if there is none, before something is built that needs it.

    Raises:
        OutputError: it cannot be written, or it is damaged.
    """
    path = user_folder("XDG_CONFIG_HOME", ".config") / KEY
    if _key(path, os.geteuid()) is not None:
        return
    private_folder(path.parent, OutputError, remedy=_REMEDY)
    try:
        create_private(path, secrets.token_bytes(_BYTES))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}. {_REMEDY}") from error


def seal(document: Mapping[str, Any]) -> str:
    """The keyed digest of a record, 64 hex digits.

    Raises:
        OutputError: there is no key (`make_key`).
    """
    return _own_digest(canonical_json(document).encode()).hex()


def is_sealed(document: Mapping[str, Any], digest: object) -> bool:
    """Whether a record was sealed by this user on this machine."""
    if not isinstance(digest, str) or not digest.isascii():
        return False
    try:
        message = canonical_json(document).encode()
    except ValueError:  # NaN
        return False
    return any(hmac.compare_digest(known.hex(), digest) for known in _known_digests(message))


def with_seal(content: bytes, name: str) -> bytes:
    """The content of a file, behind the keyed digest of it and of its name.

    Raises:
        OutputError: there is no key (`make_key`).
    """
    return _own_digest(name.encode() + b"\0" + content) + content


def sealed_content(whole: bytes, name: str) -> bytes | None:
    """What `with_seal` was given; None if this user did not seal it on this machine."""
    digest, content = whole[:_BYTES], whole[_BYTES:]
    known = _known_digests(name.encode() + b"\0" + content)
    return content if any(hmac.compare_digest(one, digest) for one in known) else None


def _own_digest(message: bytes) -> bytes:
    user = os.geteuid()
    key = _key(user_folder("XDG_CONFIG_HOME", ".config") / KEY, user)
    if key is None:
        raise OutputError(f"{KEY}: there is no key to seal engines with")
    return _digest(key, user, message)


def _known_digests(message: bytes) -> list[bytes]:
    """What the seal of a message may be, by the keys of the users that this one believes."""
    places = {os.geteuid(): user_folder("XDG_CONFIG_HOME", ".config")}
    caller = sudo_user()
    if caller:
        with contextlib.suppress(KeyError):  # no such user
            places[caller] = Path(pwd.getpwuid(caller).pw_dir) / ".config"
    found = []
    for user, folder in places.items():
        with contextlib.suppress(OutputError):  # a damaged key seals nothing
            key = _key(folder / KEY, user)
            found += [] if key is None else [_digest(key, user, message)]
    return found


def _digest(key: bytes, user: int, message: bytes) -> bytes:
    place = f"vptkit.seal/1 {user} {_machine()}".encode()
    return hmac.new(key, place + b"\0" + message, hashlib.sha256).digest()


def _key(path: Path, user: int) -> bytes | None:
    """A user's key; None if none was made.

    Raises:
        OutputError: it is damaged, or others may have written or read it.
    """
    if not os.path.lexists(path):
        return None
    with open_private(path.parent, path.name, OutputError) as stream:
        key = read_bounded(stream, path, OutputError, limit=_BYTES)
        found = os.fstat(stream.fileno())
    if len(key) != _BYTES or found.st_mode & 0o077 or found.st_uid not in (0, user):
        why = "damaged" if len(key) != _BYTES else "others may read it"
        raise OutputError(f"{path}: {why}. Remove it, and build the engines again.")
    return key


def _machine() -> str:
    """The machine's id; empty where the system has none, as in some containers."""
    for path in filter(Path.is_file, _MACHINE):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
