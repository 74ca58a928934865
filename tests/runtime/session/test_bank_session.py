"""An open bank: what is added, replaced or removed meanwhile, and what a crash leaves."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.bank_cases import family, write_family
from tests.support.children import Child
from tests.support.marks import ON_PROCESSOR
from tests.support.tolerances import PARITY_FP32, largest_difference
from vptkit import atomic_files
from vptkit.atomic_files import sha256_of_file
from vptkit.errors import AdapterError, BackboneError, BundleError, DataError, OutputError
from vptkit.export.bank import edit_bank
from vptkit.export.bank.export_bank import BankOptions, export_bank
from vptkit.formats.adapter import read_adapter, write_adapter
from vptkit.formats.bundle import open_bundle
from vptkit.formats.tensor_file import write_tensors
from vptkit.runtime import open_session
from vptkit.runtime.evaluation.parity import check_golden
from vptkit.runtime.session import bank_session as bank_module

if TYPE_CHECKING:
    from pathlib import Path

MEMBERS = ("bilinear", "norms", "linear")  # of the bank; the others come later


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Adapter files by name, the weights, and a bank of MEMBERS with room for all."""
    paths = write_family(family(), tmp_path)
    paths["bank"] = tmp_path / "a.vptk"
    export_bank(
        [paths[name] for name in MEMBERS],
        paths["bank"],
        weights=paths["weights"],
        bank=BankOptions(prompts=6),
    )
    return paths


def holds(session, name: str, of: str | None = None) -> bool:
    """Whether an adapter of the session answers as the reference of one of the family."""
    members = family()
    expected = members.reference(of or name)
    found = session.run(members.case.images, name)
    return found.shape == expected.shape and largest_difference(found, expected) <= PARITY_FP32


def content(bundle: Path) -> dict[str, bytes]:
    return {str(p.relative_to(bundle)): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}


@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_an_added_adapter_answers_at_the_next_call(files, backend):
    session = open_session(files["bank"], backend, threads=1)
    with pytest.raises(BundleError, match="no adapter 'whitened', only bilinear, norms, linear"):
        session.run(family().case.images, "whitened")
    assert edit_bank.add(files["bank"], files["whitened"]) == "whitened"
    assert holds(session, "whitened")
    assert session.bundle.labels_of("whitened") == ("whitened 0", "whitened 1")
    assert all(holds(session, name) for name in MEMBERS)


@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_a_replaced_adapter_is_live_and_a_removed_one_gone(files, backend):
    session = open_session(files["bank"], backend, threads=1)
    untouched = dict(session._tables.places)
    edit_bank.replace(files["bank"], files["both"], name="bilinear")
    assert holds(session, "bilinear", of="both")
    edit_bank.remove(files["bank"], "norms")
    with pytest.raises(BundleError, match="no adapter 'norms'"):
        session.run(family().case.images, "norms")
    assert holds(session, "linear")
    assert session._tables.places["linear"] == untouched["linear"]
    assert len(list((files["bank"] / "adapters").iterdir())) == 2


@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_a_bank_grows_beyond_its_room(files, backend):
    session = open_session(files["bank"], backend, threads=1)
    for number in range(20):
        edit_bank.add(files["bank"], files["both" if number % 2 else "whitened"], name=f"n{number}")
    assert all(holds(session, f"n{n}", of="both" if n % 2 else "whitened") for n in range(20))
    for number in range(20):
        edit_bank.remove(files["bank"], f"n{number}")
    assert all(holds(session, name) for name in MEMBERS)
    assert len(session._tables._free) == 20


def test_a_session_that_forgets_to_look_is_found_out(files, monkeypatch):
    session = open_session(files["bank"], threads=1)
    monkeypatch.setattr(bank_module, "_stamp", lambda path: session._stamp)
    edit_bank.replace(files["bank"], files["both"], name="bilinear")
    assert not holds(session, "bilinear", of="both")


@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_whom_to_ask(files, backend):
    session, images = open_session(files["bank"], backend, threads=1), family().case.images
    by_name = session.run(images, "norms")
    np.testing.assert_array_equal(session.run(images, 1), by_name)
    np.testing.assert_allclose(session.run(images, np.array([1, 1]))[:, :4], by_name, atol=1e-5)
    assert session.run(images[:0], "norms").shape == (0, 4)
    assert session.run(images[:0], []).shape == (0, 5)
    with pytest.raises(BundleError, match="holds 3 adapters, bilinear, norms, linear: name one"):
        session.run(images)
    with pytest.raises(BundleError, match="no adapter number 3, only 3"):
        session.run(images, 3)
    with pytest.raises(DataError, match="1 came for 2 images"):
        session.run(images, ["norms"])


@pytest.mark.parametrize("backend", ON_PROCESSOR)
def test_the_golden_answers_of_all_adapters(files, backend):
    session = open_session(files["bank"], backend, threads=1)
    parity = check_golden(session)
    assert parity.ok
    assert parity.count == 2 * len(MEMBERS)
    assert check_golden(session, adapter="norms").adapter == "norms"
    # another adapter's rows under the old name: its own golden answers would hold, these do not
    entry = next(e for e in session.bundle.manifest["adapters"] if e["name"] == "bilinear")
    place = session._tables.places["bilinear"][0]
    session._tables.views()["bank.prompts"][place * 3] += 0.5
    worse = check_golden(session)
    assert not worse.ok
    assert worse.adapter == entry["name"]


# refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", [edit_bank.add, edit_bank.replace])
def test_another_backbone_is_refused_by_digest(files, edit):
    adapter = read_adapter(files["linear"])
    other = replace(adapter, backbone=replace(adapter.backbone, sha256="0" * 64))
    write_adapter(files["linear"], other)
    before = content(files["bank"])
    name = "new" if edit is edit_bank.add else "linear"
    with pytest.raises(BackboneError, match="another backbone than the one that was tuned"):
        edit(files["bank"], files["linear"], name=name)
    assert content(files["bank"]) == before


def test_names_and_room(files, tmp_path):
    before = content(files["bank"])
    with pytest.raises(AdapterError, match="there is an adapter 'linear' already"):
        edit_bank.add(files["bank"], files["linear"])
    for edit in (
        lambda: edit_bank.remove(files["bank"], "x"),
        lambda: edit_bank.replace(files["bank"], files["linear"], name="x"),
    ):
        with pytest.raises(BundleError, match="no adapter 'x'"):
            edit()
    small = tmp_path / "small.vptk"
    export_bank([files["linear"]], small, weights=files["weights"])
    with pytest.raises(
        AdapterError, match=r"3 prompts, but the bank has room for 0.*--bank-prompts"
    ):
        edit_bank.add(small, files["bilinear"])
    with pytest.raises(AdapterError, match="4 classes, but the bank has room for 3"):
        edit_bank.add(small, files["norms"])
    with pytest.raises(BundleError, match="the last adapter"):
        edit_bank.remove(small, "linear")
    assert content(files["bank"]) == before


def test_only_a_bank_is_edited(files, make_bundle):
    with pytest.raises(BundleError, match="a baked bundle, not a bank"):
        edit_bank.add(make_bundle(), files["linear"])
    with pytest.raises(BundleError, match="no such folder"):
        edit_bank.remove(files["bank"].parent / "none.vptk", "linear")


def test_a_damaged_file_is_refused_and_the_tables_stay(files):
    session = open_session(files["bank"], threads=1)
    edit_bank.add(files["bank"], files["whitened"])
    manifest = open_bundle(files["bank"]).manifest
    file = files["bank"] / manifest["adapters"][-1]["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(BundleError, match="differs from its digest"):
        session.run(family().case.images, "linear")
    file.write_bytes(whole)
    assert holds(session, "whitened")


def test_another_graph_wants_a_new_session(files):
    session = open_session(files["bank"], threads=1)
    export_bank([files["linear"]], files["bank"], weights=files["weights"], force=True)
    with pytest.raises(BundleError, match=r"exported again\. Open it again"):
        session.run(family().case.images, "linear")


# crashes and company ------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize(
    ("step", "done"), [("write_rows", True), ("write_manifest", False), ("write_manifest", True)]
)
def test_a_crash_leaves_a_bundle_that_opens(files, monkeypatch, step, done):
    real = getattr(edit_bank, step)

    def crash(*arguments, **named):
        if done:
            real(*arguments, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(edit_bank, step, crash)
        with pytest.raises(Crash):
            edit_bank.replace(files["bank"], files["both"], name="bilinear")
    session = open_session(files["bank"], threads=1)
    published = step == "write_manifest" and done
    assert holds(session, "bilinear", of="both" if published else "bilinear")
    assert holds(session, "norms")
    edit_bank.replace(files["bank"], files["both"], name="bilinear")  # and clears up
    assert holds(session, "bilinear", of="both")
    manifest = json.loads((files["bank"] / "manifest.json").read_text())
    left = {f"adapters/{p.name}" for p in (files["bank"] / "adapters").iterdir()}
    assert left == {entry["file"] for entry in manifest["adapters"]}


ADD_MANY = """
import sys
from pathlib import Path
from vptkit.export.bank import edit_bank
for name in sys.argv[3:]:
    edit_bank.add(Path(sys.argv[1]), Path(sys.argv[2]), name=name)
"""


def test_editors_at_once_lose_nothing_and_calls_go_on(files):
    session, images = open_session(files["bank"], threads=1), family().case.images
    expected = session.run(images, "linear")
    names = [[f"{k}{i}" for i in range(6)] for k in "ab"]
    command = [sys.executable, "-c", ADD_MANY, files["bank"], files["both"]]
    failures: list[BaseException] = []

    def ask():
        try:
            while any(editor.poll() is None for editor in editors):
                np.testing.assert_array_equal(session.run(images, "linear"), expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        editors = [stack.enter_context(Child([*command, *some])) for some in names]
        for thread in threads:
            thread.start()
        for editor in editors:
            assert editor.wait() == 0
    for thread in threads:
        thread.join()
    assert not failures
    session.run(images, "linear")
    assert set(session.bundle.adapter_names) == {*MEMBERS, *names[0], *names[1]}
    assert all(holds(session, name, of="both") for name in names[0] + names[1])


# strangers and neighbours -------------------------------------------------------------------------


@pytest.mark.parametrize("edit", ["add", "replace", "remove"])
def test_a_link_in_place_of_the_rows_is_not_followed(files, tmp_path, edit):
    """`bank add` on such a bundle removed the files of the folder that the link leads to."""
    linked = tmp_path / "photos"
    (files["bank"] / "adapters").rename(linked)
    (files["bank"] / "adapters").symlink_to(linked)
    (linked / "mine.jpg").touch()
    before = sorted(linked.iterdir())
    with pytest.raises(BundleError, match="adapters is a symbolic link"):
        {
            "add": lambda: edit_bank.add(files["bank"], files["both"]),
            "replace": lambda: edit_bank.replace(files["bank"], files["both"], name="norms"),
            "remove": lambda: edit_bank.remove(files["bank"], "norms"),
        }[edit]()
    assert sorted(linked.iterdir()) == before


def test_what_the_manifest_never_listed_is_not_removed(files):
    rows = files["bank"] / "adapters"
    other = rows / "mine-00000000.safetensors"
    other.write_bytes(b"of the user")
    with pytest.raises(BundleError, match="holds 'adapters/mine-00000000"):
        edit_bank.remove(files["bank"], "norms")
    assert other.read_bytes() == b"of the user"
    other.unlink()
    (rows / ".mine.part").write_bytes(b"of the user")  # of no name that an edit writes
    edit_bank.remove(files["bank"], "norms")
    assert (rows / ".mine.part").exists()


def test_killed_edits_are_swept_up_by_the_next(files):
    rows = files["bank"] / "adapters"
    name = next(path.name for path in rows.iterdir())
    (rows / f".{name}.k1ll3d.part").touch()
    (files["bank"] / ".manifest.json.k1ll3d.part").touch()
    assert open_session(files["bank"], threads=1)
    edit_bank.remove(files["bank"], "norms")
    assert not list(files["bank"].rglob(".*.part"))


@pytest.mark.parametrize("step", ["write_rows", "write_manifest"])
def test_a_full_disk_leaves_the_bank_as_it_was(files, monkeypatch, step):
    before = content(files["bank"])
    real = edit_bank.write_rows

    def full(folder, *arguments):
        if step == "write_manifest":
            assert len(list((folder / "adapters").iterdir())) == 4  # the row file is there
        raise OutputError(f"{folder}: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(edit_bank, step, full)
        for edit in (
            lambda: edit_bank.add(files["bank"], files["whitened"]),
            lambda: edit_bank.replace(files["bank"], files["both"], name="norms"),
        ):
            with pytest.raises(OutputError, match="No space left"):
                edit()
            assert content(files["bank"]) == before
    assert real is edit_bank.write_rows


def test_an_edit_lands_in_the_bundle_that_has_the_name(files, tmp_path):
    """`export --force` at the same time: rows of one in the folder of the other."""
    other = tmp_path / "other.vptk"
    export_bank([files["linear"]], other, weights=files["weights"], bank=BankOptions(prompts=6))
    waiting = threading.Event()
    real = edit_bank.open_bank
    failures = []

    def slowly(path, **named):
        found = real(path, **named)
        if threading.current_thread() is editor and not waiting.is_set():
            waiting.set()
            exchanged.wait(10)
        return found

    exchanged = threading.Event()
    editor = threading.Thread(target=lambda: failures.append(_added(files)))
    edit_bank.open_bank = slowly
    try:
        editor.start()
        assert waiting.wait(10)
        atomic_files._put(other, files["bank"], force=True)
        exchanged.set()
        editor.join(30)
    finally:
        edit_bank.open_bank = real
    assert failures == [None]
    assert open_bundle(files["bank"]).adapter_names == ("linear", "whitened")
    assert open_bundle(other).adapter_names == MEMBERS


def _added(files):
    try:
        edit_bank.add(files["bank"], files["whitened"])
    except BaseException as error:
        return error
    return None


def test_a_row_file_of_another_kind_is_refused(files):
    path = files["bank"]
    document = json.loads((path / "manifest.json").read_text())
    entry = document["adapters"][0]
    for tensors in (
        {"head_bias": np.zeros((), np.float32)},
        {"head_bias": np.zeros(3, np.int64), "head_weight": np.zeros((32, 3), np.int64)},
    ):
        write_tensors(path / entry["file"], tensors)
        entry["sha256"] = document["files"][entry["file"]] = sha256_of_file(path / entry["file"])
        (path / "manifest.json").write_text(json.dumps(document))
        with pytest.raises(BundleError, match="the bank has room for"):
            open_session(path, threads=1)
