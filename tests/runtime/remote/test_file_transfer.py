"""What goes to a board, and that it arrives whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from dataclasses import replace

import pytest

from tests.support.children import run_child
from tests.support.sshd import bare_python, server  # noqa: F401 -- fixtures
from vptkit.errors import BundleError, VptkitError
from vptkit.formats.bundle import MANIFEST
from vptkit.progress import SILENT
from vptkit.runtime.remote.file_transfer import Item, bundle_items, code_items, ship
from vptkit.runtime.remote.ssh_link import connect


@contextlib.contextmanager
def phases(title, total):
    yield SILENT


@pytest.fixture
def link(server):  # noqa: F811
    with connect(server.host, python=sys.executable, ssh_options=server.options) as opened:
        yield opened
    server.wait_until_idle()


@pytest.fixture
def item(tmp_path):
    """A file of 1000 bytes."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    return Item(path="a/file", file=file, sha256=digest, size=1000)


def test_the_code_is_one_tree_that_runs_on_little(tmp_path, bare_python):  # noqa: F811
    for item in code_items():
        (tmp_path / item.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item.path).write_bytes(item.file.read_bytes())
    code = (
        "import tomli, vptkit, vptkit.runtime.remote.profile_runner, vptkit.runtime.profile.run_profile\n"
        "import vptkit.runtime.engine_build.builder, vptkit.runtime.backends.tensorrt_graph, vptkit.runtime.session.bank_session\n"
        "from vptkit.devices.boards.catalog import boards\n"
        "assert tomli.loads('a = 1') == {'a': 1} and 'orin-nano-8gb' in boards()\n"
        "print(vptkit.__file__)"
    )
    command = [bare_python, "-c", code]
    done = run_child(command, cwd=tmp_path, check=False)
    assert (done.stderr, done.stdout) == ("", f"{tmp_path}/vptkit/__init__.py\n")
    assert not [*tmp_path.rglob("cli*"), *tmp_path.rglob("checkpoints*")]
    assert sum(item.size for item in code_items()) < 1_200_000


def test_a_bundle_goes_without_its_engines(make_bundle):
    bundle = make_bundle()
    (bundle / "engines").mkdir()
    (bundle / "engines/x.engine").touch()
    items = bundle_items(bundle, "there")
    listed = json.loads((bundle / MANIFEST).read_text())["files"]
    assert {i.path for i in items} == {f"there/{name}" for name in (*listed, MANIFEST)}
    assert all(i.sha256 == hashlib.sha256(i.file.read_bytes()).hexdigest() for i in items)
    (bundle / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model.onnx differs"):
        bundle_items(bundle, "there")


def test_a_file_is_sent_once(server, link, item):  # noqa: F811
    again = replace(item, path="b/other")
    assert ship(link, [item, again], phases) == 1000
    (run,) = (server.cache / "runs").iterdir()
    assert (run / "a/file").samefile(run / "b/other")
    assert ship(link, [replace(item, path="c")], phases) == 0


def test_a_file_that_changed_meanwhile(server, link, item):  # noqa: F811
    wrong = replace(item, sha256=hashlib.sha256(b"y" * 1000).hexdigest())
    with pytest.raises(VptkitError, match="changed while it was copied"):
        ship(link, [wrong], phases)
    assert not (server.cache / "files" / wrong.sha256).exists()


def test_a_file_that_became_shorter(server, link, item):  # noqa: F811
    longer = replace(item, size=1001, sha256="0" * 64)
    with pytest.raises(VptkitError, match=r"file: became shorter"):
        ship(link, [longer], phases)
    assert not (server.cache / "files" / longer.sha256).exists()


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil"])
def test_nothing_lands_elsewhere(link, item, path):
    with pytest.raises(VptkitError, match="leads out of its folder"):
        ship(link, [replace(item, path=path)], phases)


def test_the_disk_is_too_full(link, item):
    link.board["free"] = 1000
    unknown = replace(item, sha256="1" * 64)
    with pytest.raises(VptkitError, match=r"0 MB are to be copied.*Make room"):
        ship(link, [unknown], phases)
