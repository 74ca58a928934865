"""The engine cache: what fits, what is named and why, what is removed."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import replace

import pytest

from tests.support.fakes.gpu import ORIN_GPU
from vptkit.errors import BundleError, MissingError, OutputError
from vptkit.formats.bundle import open_bundle, write_manifest
from vptkit.runtime.backends import engine_cache
from vptkit.runtime.backends.engine_cache import (
    Here,
    Key,
    ask_for,
    engine_folder,
    exclusive,
    find_engine,
    graph_digest,
    list_engines,
    open_engine,
    remove_stale_engines,
    store,
    timing_cache,
)

ADA = replace(ORIN_GPU, name="NVIDIA L4", capability=(8, 9), integrated=False)


@pytest.fixture
def bundle(make_bundle):
    return open_bundle(make_bundle())


@pytest.fixture
def put(bundle):
    """A function that stores an engine; a later one is newer."""
    count = 0

    def one(*, content=b"plan", options=None, **here):
        nonlocal count
        count += 1
        plain = {
            "library": "tensorrt",
            "version": "10.3.0",
            "capability": "8.7",
            "gpu": "Orin",
            "sms": 8,
            "graph": graph_digest(bundle),
        }
        key = Key(here=Here(**plain | here), options=options or {"batch": count})
        folder = engine_folder(bundle)
        folder.mkdir(exist_ok=True)

        def write(part):
            part.write_bytes(content)
            return {"built_at": f"2026-01-{count:02}", "layers": []}

        return store(folder, key, write)

    return one


def found(bundle, gpu=ORIN_GPU, version="10.3.0", library="tensorrt"):
    return find_engine(bundle, library=library, version=version, gpu=gpu)


def test_the_newest_that_fits(bundle, put):
    put(content=b"old")
    newest = put(content=b"new")
    put(version="10.13.2", content=b"foreign")
    engine = found(bundle)
    assert (engine.path, engine.path.read_bytes()) == (newest.path, b"new")
    assert engine.record["options"] == {"batch": 2}
    assert newest.fresh
    assert not engine.fresh


def test_of_several_that_fit_the_one_asked_for_last(bundle, put):
    first, second = put(), put()
    assert found(bundle).path == second.path
    for engine in (first, second):
        os.utime(engine.path.with_suffix(".json"), (1e9, 1e9))
    ask_for(list_engines(bundle)[1])
    assert found(bundle).path == first.path


def test_a_record_says_what_the_engine_is(put):
    record = json.loads(put().path.with_suffix(".json").read_text())
    assert (record["library"], record["version"], record["gpu"]) == ("tensorrt", "10.3.0", "Orin")
    assert record["bytes"] == 4
    assert record["format"] == "vptkit.engine/1"


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (
            {"version": "8.6.2"},
            "built by TensorRT 8.6.2 on Orin (8.7, 8 SMs); here is TensorRT 10.3.0 on Orin (8.7, 8",
        ),
        (
            {"gpu": "NVIDIA Thor", "capability": "11.0"},
            "built by TensorRT 10.3.0 on NVIDIA Thor (11.0, 8 SMs); here is TensorRT 10.3.0 on Orin",
        ),
        ({"sms": 16}, "built by TensorRT 10.3.0 on Orin (8.7, 16 SMs); here is"),
        ({"library": "tensorrt_rtx", "version": "1.7.1"}, "built by TensorRT-RTX 1.7.1 on Orin"),
        ({"graph": "0" * 64}, "built of another graph"),
    ],
)
def test_what_does_not_fit_is_named(bundle, put, here, reason):
    name = put(**here).path.name
    with pytest.raises(MissingError) as caught:
        found(bundle)
    assert f"{name}: {reason}" in str(caught.value)
    assert f"vptkit build {bundle.path}" in str(caught.value)
    assert "--backend" not in str(caught.value)


def test_no_engine_at_all(bundle):
    with pytest.raises(MissingError, match=r"no engine for TensorRT-RTX 1\.7\.1 on NVIDIA L4") as e:
        found(bundle, ADA, "1.7.1", "tensorrt_rtx")
    assert "--backend tensorrt-rtx" in str(e.value)
    assert "Not used" not in str(e.value)


def test_a_damaged_plan_is_not_loaded(bundle, put):
    put().path.write_bytes(b"plam")
    with pytest.raises(MissingError, match="damaged"):
        found(bundle)


def test_ahead_of_time_fits_any_gpu_of_the_capability(bundle, put):
    put(library="tensorrt_rtx", version="1.7.1", capability="8.9", gpu=None, sms=None)
    assert found(bundle, ADA, "1.7.1", "tensorrt_rtx").record["gpu"] is None
    with pytest.raises(MissingError, match=r"on any GPU \(8\.9\); here is TensorRT-RTX"):
        found(bundle, ORIN_GPU, "1.7.1", "tensorrt_rtx")


def test_engines_are_no_part_of_the_bundle(bundle, put):
    put()
    assert open_bundle(bundle.path).manifest == bundle.manifest


def test_a_cache_elsewhere(bundle, put, tmp_path, monkeypatch):
    monkeypatch.setenv("VPTKIT_CACHE", str(tmp_path))
    folder = engine_folder(bundle)
    assert folder == tmp_path / graph_digest(bundle)[:16]
    assert put().path.parent == folder


def test_a_graph_with_external_data_has_its_digest_from_both(bundle):
    files = {"model.onnx": "a", "model.onnx.data": "b", "golden.safetensors": "c"}
    stamps = dict.fromkeys(files, bundle.stamps["model.onnx"])
    one = replace(bundle, manifest={**bundle.manifest, "files": files}, stamps=stamps)
    other = replace(one, manifest={**one.manifest, "files": files | {"model.onnx.data": "x"}})
    same = replace(one, manifest={**one.manifest, "files": files | {"golden.safetensors": "x"}})
    assert graph_digest(one) != graph_digest(other)
    assert graph_digest(one) == graph_digest(same)


def test_a_build_that_fails_leaves_the_old_engine(bundle, put):
    put(options={"a": 1})
    folder = engine_folder(bundle)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    key = Key(
        here=Here(**{k: list_engines(bundle)[0].record[k] for k in Here.__slots__}),
        options={"a": 1},
    )

    def fail(part):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(folder, key, fail)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_record_that_is_not_one_is_passed_over(bundle, put):
    put()
    (engine_folder(bundle) / "x.json").write_text("{")
    (engine_folder(bundle) / "y.json").write_text('{"format": "other"}')
    assert len(list_engines(bundle)) == 1


def test_clean_removes_what_does_not_fit(bundle, put):
    kept, stale, damaged = put(), put(version="8.6.2"), put()
    damaged.path.write_bytes(b"x")
    folder = engine_folder(bundle)
    here = Here(**{k: kept.record[k] for k in Here.__slots__})
    times = timing_cache(folder, here), timing_cache(folder, replace(here, version="8.6.2"))
    for path in (*times, folder / "mine.txt"):
        path.write_bytes(b"x")
    gone = remove_stale_engines(bundle, here)
    assert {stale.path, damaged.path, times[1]} < set(gone)
    left = {p.name for p in folder.iterdir()}
    assert left == {kept.path.name, f"{kept.path.stem}.json", times[0].name, "mine.txt"}


RTX = {"library": "tensorrt_rtx", "version": "1.7.1"}
AHEAD = {**RTX, "gpu": None, "sms": None}


def left_after(bundle, here):
    """Paths of the engines that `clean` leaves to a library on a GPU."""
    remove_stale_engines(bundle, Here(**here, graph=graph_digest(bundle)))
    return {engine.path for engine in list_engines(bundle)}


def test_clean_leaves_the_other_library_alone(bundle, put):
    others = [put(), put(version="8.6.2"), put(gpu="NVIDIA L4", capability="8.9", sms=58)]
    stale = put(**RTX | {"version": "1.6.0"})
    times = timing_cache(
        engine_folder(bundle), Here(**{k: others[0].record[k] for k in Here.__slots__})
    )
    times.write_bytes(b"x")
    here = {**RTX, "capability": "8.7", "gpu": "Orin", "sms": 8}
    assert left_after(bundle, here) == {engine.path for engine in others}
    assert not stale.path.exists()
    assert times.exists()


def test_clean_leaves_what_was_built_ahead_for_another_gpu(bundle, put):
    here = put(**RTX, capability="8.9", gpu="NVIDIA L4", sms=58)
    ahead, elsewhere = put(**AHEAD, capability="8.9"), put(**AHEAD, capability="12.0")
    put(**AHEAD | {"version": "1.6.0"}, capability="8.9")
    put(**AHEAD, capability="12.0", graph="0" * 64)
    put(**AHEAD, capability="12.0").path.write_bytes(b"damaged")
    put(**RTX, capability="12.0", gpu="NVIDIA GeForce RTX 5090", sms=170)
    l4 = {**RTX, "capability": "8.9", "gpu": "NVIDIA L4", "sms": 58}
    assert left_after(bundle, l4) == {here.path, ahead.path, elsewhere.path}
    # asked for another kind of GPU, without one: this machine's engine is not for it to judge
    assert left_after(bundle, {**AHEAD, "capability": "12.0"}) == {
        here.path,
        ahead.path,
        elsewhere.path,
    }


def test_clean_removes_plans_of_nobody(bundle, put):
    kept = put()
    orphan, unreadable = (
        engine_folder(bundle) / name for name in ("a" * 12 + ".engine", "b" * 12 + ".json")
    )
    orphan.write_bytes(b"x")
    unreadable.write_text("{")
    others = [engine_folder(bundle) / name for name in ("notes.json", "mine.engine")]
    for other in others:
        other.write_text("of the user")
    here = {k: kept.record[k] for k in Here.__slots__ if k != "graph"}
    assert left_after(bundle, here) == {kept.path}
    assert not orphan.exists()
    assert not unreadable.exists()
    assert all(other.exists() for other in others)


def test_clean_does_not_follow_a_link(bundle, tmp_path):
    """`engines` of a stranger's bundle may lead to the engines of another one."""
    other = tmp_path / "other"
    other.mkdir()
    (other / ("a" * 12 + ".engine")).write_bytes(b"plan")
    (bundle.path / "engines").symlink_to(other)
    here = Here(library="tensorrt", version="8", capability="8.7", gpu=None, sms=None, graph="")
    with pytest.raises(BundleError, match="engines: a link"):
        remove_stale_engines(bundle, here)
    with pytest.raises(BundleError, match="engines is not a folder of its own"):
        open_bundle(bundle.path)
    assert [path.name for path in other.iterdir()] == ["a" * 12 + ".engine"]


def test_kernel_times_are_of_one_kind_of_gpu(bundle):
    here = Here(
        library="tensorrt", version="10.3.0", capability="8.7", gpu="Orin", sms=8, graph="0"
    )
    folder = engine_folder(bundle)
    assert timing_cache(folder, here).name == "tensorrt-10.3.0-8.7-Orin-8.timing"
    assert timing_cache(folder, here) != timing_cache(folder, replace(here, sms=16))


def test_one_build_at_a_time(tmp_path):
    inside, leave, order = threading.Event(), threading.Event(), []

    def first():
        with exclusive(tmp_path, order.append):
            inside.set()
            leave.wait(30)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)

    def waiting():
        order.append("waiting")
        leave.set()

    with exclusive(tmp_path, waiting):
        order.append("second")
    thread.join(30)
    assert order == ["waiting", "first", "second"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=engine_cache.CACHE_VARIABLE),
        exclusive(tmp_path / "file" / "x", str),
    ):
        pass


def test_a_manifest_written_anew_leaves_engines_out(bundle, put):
    put()
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    assert set(write_manifest(bundle.path, fields)) == set(bundle.manifest["files"])


# whose work it is ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A function: from now on this is another user's machine."""

    def move():
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))

    return move


def test_an_engine_of_elsewhere_is_not_used_unless_trusted(bundle, put, elsewhere):
    """A bundle that came with its engines, digests and all."""
    engine = put()
    elsewhere()
    with pytest.raises(MissingError) as caught:
        found(bundle)
    text = str(caught.value)
    assert f"{engine.path.name}: not built by this user on this machine" in text
    assert f"Build it here: vptkit build {bundle.path}" in text
    assert "--trust-engines" in text
    trusted = find_engine(bundle, library="tensorrt", version="10.3.0", gpu=ORIN_GPU, trust=True)
    assert trusted.path == engine.path


def test_an_engine_that_was_put_in_anothers_place_is_not_used(bundle, put):
    """Somebody replaces the plan and writes its digest into our record."""
    engine = put()
    engine.path.write_bytes(b"evil")
    path = engine.path.with_suffix(".json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "sha256": hashlib.sha256(b"evil").hexdigest()}))
    with pytest.raises(MissingError, match="not built by this user"):
        found(bundle)


def test_trust_does_not_make_a_damaged_plan_whole(bundle, put, elsewhere):
    put().path.write_bytes(b"plam")
    elsewhere()
    with pytest.raises(MissingError, match="damaged"):
        find_engine(bundle, library="tensorrt", version="10.3.0", gpu=ORIN_GPU, trust=True)


@pytest.mark.parametrize("what", ["folder", "record", "plan"])
def test_what_others_may_write_is_not_used(bundle, put, what):
    engine = put()
    record = engine.path.with_suffix(".json")
    path = {"folder": engine.path.parent, "record": record, "plan": engine.path}[what]
    path.chmod(0o777 if what == "folder" else 0o666)
    with pytest.raises(MissingError, match=r"others may write it \(mode 0[67]{3}\)"):
        found(bundle)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "record", "plan"])
def test_what_belongs_to_another_is_not_used(bundle, put, what):
    engine = put()
    record = engine.path.with_suffix(".json")
    path = {"folder": engine.path.parent, "record": record, "plan": engine.path}[what]
    os.chown(path, 12345, 12345)
    with pytest.raises(MissingError, match="belongs to user 12345"):
        found(bundle)


@pytest.mark.parametrize("what", ["folder", "record", "plan"])
def test_no_link_is_followed(bundle, put, tmp_path, what):
    engine = put()
    record = engine.path.with_suffix(".json")
    path = {"folder": engine.path.parent, "record": record, "plan": engine.path}[what]
    path.rename(tmp_path / "away")
    path.symlink_to(tmp_path / "away")
    with pytest.raises(MissingError, match=r"link|no engine for"):
        found(bundle)
    if what == "folder":
        with pytest.raises(OutputError, match="symbolic link"), exclusive(path, str):
            pass
        assert (tmp_path / "away" / engine.path.name).exists()


def test_what_a_stranger_calls_a_record_is_no_traceback(bundle, put):
    engine = put()
    path = engine.path.with_suffix(".json")
    record = json.loads(path.read_text())
    for odd in (
        {**record, "sha256": None},
        {**record, "graph": [1]},
        {**record, "sms": "8"},
        {k: v for k, v in record.items() if k != "options"},
        [record],
        "[" * 100_000,
    ):
        path.write_text(odd if isinstance(odd, str) else json.dumps(odd))
        with pytest.raises(MissingError, match="no engine for"):
            found(bundle)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MissingError, match="no engine for"):
        found(bundle)


def test_what_is_checked_is_what_is_loaded(bundle, put):
    """The plan is replaced between the check and the loading: the descriptor stays."""
    engine = put()
    _, plan = open_engine(bundle, library="tensorrt", version="10.3.0", gpu=ORIN_GPU)
    (engine.path.parent / "x").write_bytes(b"evil")
    (engine.path.parent / "x").replace(engine.path)
    with plan:
        assert plan.read() == b"plan"


def test_the_cache_is_this_users_alone(bundle, put):
    folder = engine_folder(bundle)
    folder.mkdir()
    folder.chmod(0o777)
    with exclusive(folder, str):
        assert folder.stat().st_mode & 0o777 == 0o700
        engine = put()
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {0o600}
    assert found(bundle).path == engine.path
