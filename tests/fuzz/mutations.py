"""How files are spoilt: blindly by bytes, and by those who know their structure."""

from __future__ import annotations

import copy
import json
import os
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

__all__ = ["spoil_bytes", "spoil_folder", "spoil_json", "spoil_safetensors", "spoil_text"]

DEEP = "[" * 100_000 + "]" * 100_000
# What a stranger may write where something else is expected.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**7, 10**9, 2**31, 2**63, -(2**63), 10**30),
    *(0.0, -0.0, 0.5, 1e-9, 1e-300, 1e300, -1.5, float("nan"), float("inf")),
    *("", " ", ".", "..", "/", "../../outside/secret.txt", "/etc/passwd", "a/b", "adapters/../x"),
    *("\0", "a\0b", "\x1b]0;title\x07", "a\nb", "a\rb", "\u202eabc", "\ud800", "x" * 5000, "=1+1"),
    *("file:///etc/passwd", "http://127.0.0.1:9/x", "hf-hub:a/b", "$x_{", "[red]x[/red]", "-x"),
    *([], [[]], [None], [1, 2, 3], ["a"] * 3, {}, {"": None}, {"url": "http://127.0.0.1:9/x"}),
    *([0] * 2000, {str(i): i for i in range(2000)}),
)
TOKENS = (
    *(b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0" * 64, b"NaN", b"1e999", b"9" * 5000),
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\n",
        b"\r",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\x1b[2J",
    ),
    *(b"../", b"/dev/zero", b"%s", b"=cmd()", b"#", b"'''", b"true", b"null", b"-1", b"../outside"),
)


def spoil_bytes(random: Random, content: bytes) -> bytes:
    """One to four blind changes: bits, numbers, pieces lost, doubled or from elsewhere, an end."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        place = random.randrange(len(data) + 1)
        # near the beginning lies the header
        if random.random() < 0.5:
            place = min(place, random.randrange(256))
        kind = random.randrange(8)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << random.randrange(8)
        elif kind == 1:
            width = random.choice((1, 2, 4, 8))
            number = random.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 10**6, 65535))
            order = random.choice(("little", "big"))
            data[place : place + width] = (number % 256**width).to_bytes(width, order)
        elif kind == 2:
            del data[place : place + random.choice((1, 2, 16, 1000))]
        elif kind == 3:
            piece = data[place : place + random.choice((1, 8, 64, 4096))]
            data[place:place] = piece * random.choice((1, 2, 50))
        elif kind == 4:
            data[place:place] = random.choice(TOKENS)
        elif kind == 5:
            piece = random.choice(TOKENS)
            data[place : place + len(piece)] = piece
        elif kind == 6:
            del data[place:]
        else:
            data[place : place + 8] = random.randbytes(8)
    return bytes(data)


def spoil_json(random: Random, document: Any) -> Any:
    """A copy with one to three nodes changed, lost, doubled or renamed."""
    changed = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 2, 3))):
        owner, key = _node(random, changed)
        if owner is None:
            continue
        kind = random.randrange(6)
        if kind <= 2:
            owner[key] = copy.deepcopy(random.choice(ODD))
        elif kind == 3:
            del owner[key]
        elif kind == 4:
            _grow(random, owner, key)
        elif isinstance(owner[key], (int, float)) and not isinstance(owner[key], bool):
            owner[key] = owner[key] * random.choice((-1, 0, 2, 1000, 10**6, 0.5))
        else:
            owner[key] = [owner[key]]
    return changed


def spoil_text(random: Random, document: Any) -> bytes:
    """JSON text of a changed document; sometimes with what no document can hold."""
    text = json.dumps(spoil_json(random, document)).encode("utf-8", "surrogatepass")
    kind = random.randrange(12)
    if kind == 0:
        return spoil_bytes(random, text)
    if kind == 1:
        return text.replace(b"null", random.choice((DEEP.encode(), b"9" * 5000)), 1)
    if kind == 2 and text[:1] == b"{":
        return text[:1] + random.choice((b'"a": 1, "a": 2, ', b'"name": 1, ')) + text[1:]
    return text


def spoil_safetensors(random: Random, content: bytes) -> bytes:
    """Header, metadata or numbers of a safetensors file changed, mostly with lengths that fit."""
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    meta = header.get("__metadata__", {})
    kind = random.randrange(6)
    if kind <= 2 and "vptkit" in meta:
        inner = spoil_text(random, json.loads(meta["vptkit"]))
        meta["vptkit"] = inner.decode("utf-8", "replace")
    elif kind == 3:
        header = spoil_json(random, header)
    elif kind == 4:
        data = spoil_bytes(random, data)
    else:
        return spoil_bytes(random, content)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def spoil_folder(random: Random, folder: Path, outside: Path) -> None:
    """Put something else in the place of a file, or something beside it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = random.choice(files)
    kind = random.randrange(9)
    if kind == 0:
        (path.parent / f"{path.stem}2{path.suffix}").write_bytes(path.read_bytes())
        return
    if kind == 1:
        path.write_bytes(b"")
        return
    if kind == 2:
        path.write_bytes(spoil_bytes(random, path.read_bytes()))
        return
    if kind == 3 and path.parent != folder:
        path.parent.rename(outside.parent / "moved")
        path.parent.symlink_to(outside.parent / "moved")
        return
    path.unlink()
    if kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.mkdir()
    elif kind == 6:
        path.symlink_to("/dev/zero")
    elif kind == 7:
        same = sorted(outside.glob(f"*{path.suffix}"))
        path.symlink_to(random.choice(same or sorted(outside.iterdir())))


def _node(random: Random, document: Any) -> tuple[Any, Any]:
    """A container and a key or place in it; each level of the document is as likely as another."""
    owner: Any = None
    key: Any = None
    here = document
    while isinstance(here, (dict, list)) and here:
        owner, key = here, random.choice(list(here) if isinstance(here, dict) else range(len(here)))
        here = here[key]
        if random.random() < 0.3:
            break
    return owner, key


def _grow(random: Random, owner: Any, key: Any) -> None:
    if isinstance(owner, dict):
        other = random.choice((f"{key}x", "", "a\0", "__proto__", str(key).upper(), "../x"))
        owner[other] = owner[key] if random.random() < 0.5 else owner.pop(key)
    else:
        owner.extend([copy.deepcopy(owner[key])] * random.choice((1, 2, 500)))
