"""The seal holds for this user on this machine, and for nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from vptkit.errors import OutputError
from vptkit.runtime.backends import engine_seal
from vptkit.runtime.backends.engine_seal import (
    KEY,
    is_sealed,
    make_key,
    seal,
    sealed_content,
    with_seal,
)
from vptkit.strict_json import canonical_json

RECORD = {"sha256": "0" * 64, "layers": [1, 2.5]}


@pytest.fixture
def key(tmp_path, monkeypatch):
    """The key's file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    make_key()
    return tmp_path / "config" / KEY


def test_the_key_is_this_users_alone(key):
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    assert key.parent.stat().st_mode & 0o777 == 0o700
    before = key.read_bytes()
    make_key()
    assert key.read_bytes() == before


def test_a_seal_is_of_one_record(key):
    digest = seal(RECORD)
    assert is_sealed(RECORD, digest)
    assert not is_sealed({**RECORD, "layers": [1, 2]}, digest)
    for other in (None, 1, "", "0" * 64, "é" * 64, digest[:-1], digest.encode()):
        assert not is_sealed(RECORD, other)


def test_another_user_another_machine_another_key(key, monkeypatch):
    digest, whole = seal(RECORD), with_seal(b"times", "a")
    machine = key.parent / "machine-id"
    machine.write_text("another\n")
    with monkeypatch.context() as patch:
        patch.setattr(engine_seal, "_MACHINE", (machine,))
        assert not is_sealed(RECORD, digest)
        assert sealed_content(whole, "a") is None
    key.unlink()
    assert not is_sealed(RECORD, digest)  # there is no key: nothing was built here
    assert sealed_content(whole, "a") is None
    make_key()
    assert not is_sealed(RECORD, digest)


def test_content_is_of_one_file(key):
    whole = with_seal(b"times", "a")
    assert sealed_content(whole, "a") == b"times"
    assert sealed_content(whole, "b") is None
    assert sealed_content(whole + b"x", "a") is None
    assert sealed_content(b"", "a") is None


def test_a_key_that_others_may_know_is_none(key):
    digest = seal(RECORD)
    for mode in (0o644, 0o620):
        key.chmod(mode)
        assert not is_sealed(RECORD, digest)
        with pytest.raises(OutputError, match="others may"):
            make_key()
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(OutputError, match="damaged"):
        make_key()
    key.unlink()
    key.symlink_to(os.devnull)
    with pytest.raises(OutputError, match=r"symbolic link|device"):
        make_key()


def test_a_key_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="XDG_CONFIG_HOME"):
        make_key()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is root by sudo")
def test_root_believes_whoever_became_root_by_sudo(key, tmp_path, monkeypatch):
    """Power modes are measured with sudo, on engines that were built without it."""
    home = tmp_path / "home"
    theirs = home / ".config" / KEY
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(bytes(32))
    theirs.chmod(0o600)
    os.chown(theirs, 12345, 12345)
    digest = engine_seal._digest(bytes(32), 12345, canonical_json(RECORD).encode()).hex()
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_dir=str(home)))
    assert not is_sealed(RECORD, digest)
    monkeypatch.setenv("SUDO_UID", "12345")
    assert is_sealed(RECORD, digest)
    assert is_sealed(RECORD, seal(RECORD))
    os.chown(theirs, 54321, 54321)  # planted in that home by a third
    assert not is_sealed(RECORD, digest)
    monkeypatch.setenv("SUDO_UID", "nobody")
    assert is_sealed(RECORD, seal(RECORD))


def test_a_machine_without_an_id(monkeypatch):
    monkeypatch.setattr(engine_seal, "_MACHINE", (Path("/no/such"),))
    assert engine_seal._machine() == ""
