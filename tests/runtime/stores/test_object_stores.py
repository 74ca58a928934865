from __future__ import annotations

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vptkit.errors import DataError, MissingError
from vptkit.runtime.stores import object_stores
from vptkit.runtime.stores.object_stores import (
    read_object,
    read_range,
    reading,
    store_errors,
    store_of,
)

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store():
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/x y%.jpg", b"0123456789")
    yield store
    store.rm("/bucket", recursive=True)


def test_an_object_and_parts_of_it(store, monkeypatch):
    address = "memory://bucket/x y%.jpg"
    assert read_object(address) == b"0123456789"
    assert read_range(address, 2, 3) == b"234"
    assert read_range(address, 8, 9) == b"89"
    assert read_range(address, 8, 0) == b""
    with reading(address) as stream:
        assert (stream.read(3), stream.read()) == (b"012", b"3456789")
    monkeypatch.setattr(object_stores, "MAX_BYTES", 9)
    with pytest.raises(DataError, match=r"memory://bucket/x y%\.jpg: more than 9 bytes"):
        read_object(address)


@pytest.mark.parametrize(
    ("scheme", "package"),
    [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs"), ("https", "aiohttp")],
)
def test_a_missing_package_is_named(monkeypatch, scheme, package):
    def missing(name):
        raise ImportError(f"Install {package}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(
        MissingError, match=rf"{scheme}:// needs {package}, .*: pip install fsspec {package}"
    ):
        store_of(f"{scheme}://b/x")


def test_without_fsspec(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingError, match="pip install fsspec s3fs"):
        read_object("s3://b/x")


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("b/x"), "s3://b/x: no such object"),
        (
            FileNotFoundError("The specified bucket does not exist"),
            "s3://b/x: The specified bucket does",
        ),
        (PermissionError("Forbidden"), r"s3://b/x: access denied \(Forbidden\)"),
        (PermissionError(), "s3://b/x: access denied$"),
        (NoCredentialsError("Unable"), "no credentials were found .*FSSPEC_S3_ANON=true"),
        (TimeoutError(), "s3://b/x: cannot be read: TimeoutError"),
        (OSError(5, "worn\nout"), r"s3://b/x: cannot be read: \[Errno 5\] worn out"),
    ],
)
def test_what_libraries_raise_is_said_in_a_line(error, message):
    with pytest.raises(DataError, match=message), store_errors("s3://b/x"):
        raise error


def test_no_error_tells_a_secret():
    address = "https://joe:hunter2@h/x.jpg?token=hunter3&v=1"
    error = OSError("joe hunter2 https://h/x.jpg?token=hunter3 hunter3")
    with pytest.raises(DataError) as caught, store_errors(address):
        raise error
    assert "hunter" not in str(caught.value)
    assert str(caught.value).startswith("https://***@h/x.jpg?token=***&v=1: cannot be read: ")


class _Requests(SimpleHTTPRequestHandler):
    """A server that knows no ranges, as Python's own."""

    def do_GET(self):
        if "closed" in self.path:
            self.send_error(403)
        else:
            super().do_GET()

    do_HEAD = do_GET  # noqa: N815 -- the name that http.server looks for

    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Requests, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(30)
    server.server_close()


def test_a_server_of_files(address, tmp_path):
    (tmp_path / "x y.jpg").write_bytes(b"0123")
    large = bytes(range(256)) * 50_000  # more than a block
    (tmp_path / "s.tar").write_bytes(large)
    assert read_object(f"{address}/x%20y.jpg?token=1") == b"0123"
    with reading(f"{address}/s.tar") as stream:
        assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == large
    with pytest.raises(DataError, match=r"/z\.jpg: no such object"):
        read_object(f"{address}/z.jpg")
    with pytest.raises(DataError, match=r"/closed\.jpg\?token=\*\*\*: access denied"):
        read_object(f"{address}/closed.jpg?token=hunter2")


def test_a_server_that_does_not_answer():
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    with pytest.raises(DataError, match=r"x\.jpg: cannot be read: .*(Cannot connect|refused)"):
        read_object("http://127.0.0.1:1/x.jpg")
