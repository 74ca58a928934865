"""An S3 server of this process on loopback: moto's, with the variables that lead boto's children to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["s3_address", "s3_server"]

_KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    """Where a server listens; it ends with the module's tests."""
    moto = pytest.importorskip("moto.server", reason="moto[s3], flask, flask-cors: not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def s3_server(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system of s3fs; there is an empty bucket `bucket` and nothing else."""
    import s3fs

    urlopen(Request(f"{s3_address}/moto-api/reset", method="POST")).close()
    for name, value in {**_KEYS, "AWS_ENDPOINT_URL": s3_address}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.call_s3("create_bucket", Bucket="bucket")
    yield store
    s3fs.S3FileSystem.clear_instance_cache()
