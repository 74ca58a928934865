"""What a profile prepares: one backend for all, and engines."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from vptkit.errors import MissingError, VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.progress import SILENT
from vptkit.runtime.backends.engine_cache import list_engines
from vptkit.runtime.engine_build.builder import BuildOptions, build_engine
from vptkit.runtime.profile import prerequisites
from vptkit.runtime.profile.prerequisites import build_engines, settle
from vptkit.runtime.profile.run_profile import profile_bundles
from vptkit.runtime.profile.settings import ProfileSettings


@pytest.fixture
def built(monkeypatch):
    """The options of each build; libraries in `missing` refuse."""
    record = SimpleNamespace(options=[], missing=set(), cache=[])

    def fake(bundle, options, *, progress):
        record.options.append(options)
        if options.library in record.missing:
            raise MissingError(f"no {options.library} here")
        engine = SimpleNamespace(path=replace(options, force=False))
        if engine not in record.cache or options.force:
            record.cache.insert(0, engine)
        return engine

    monkeypatch.setattr(prerequisites, "list_engines", lambda bundle: record.cache)
    monkeypatch.setattr(prerequisites, "build_engine", fake)
    monkeypatch.setattr(prerequisites, "probe", lambda: None)
    return record


def prepare(bundle, **settings):
    build_engines([bundle], ProfileSettings(**settings), SILENT)


@pytest.mark.parametrize(
    ("backend", "libraries"),
    [
        ("cpu", []),
        ("cuda", []),
        ("tensorrt", ["tensorrt"]),
        ("tensorrt-rtx", ["tensorrt_rtx"]),
        ("auto", ["tensorrt"]),
        ("openvino", []),
        ("cpu,tensorrt-rtx, tensorrt", ["tensorrt_rtx", "tensorrt"]),
    ],
)
def test_which_library_builds(make_bundle, built, backend, libraries):
    prepare(make_bundle(), backend=backend)
    assert [options.library for options in built.options] == libraries


def test_auto_goes_on_to_the_next_library(make_bundle, built, capsys):
    built.missing = {"tensorrt"}
    prepare(make_bundle(), backend="auto")
    assert [options.library for options in built.options] == ["tensorrt", "tensorrt_rtx"]
    assert capsys.readouterr().err == "tensorrt: no tensorrt here\n"
    with pytest.raises(MissingError, match="no tensorrt here"):
        prepare(make_bundle(), backend="tensorrt")


def test_auto_builds_nothing_without_a_gpu(make_bundle, built, monkeypatch):
    def probe():
        raise MissingError("no driver")

    monkeypatch.setattr(prerequisites, "probe", probe)
    prepare(make_bundle(), backend="auto")
    assert built.options == []
    prepare(make_bundle(), backend="tensorrt")  # says itself what is missing
    assert len(built.options) == 1


@pytest.mark.parametrize(("batches", "most"), [(None, 32), ((1, 8), 32), ((1, 64), 64)])
def test_the_engine_takes_every_batch_that_is_measured(make_bundle, built, batches, most):
    prepare(make_bundle(), backend="tensorrt", batches=batches)
    assert built.options[0].batch == (1, 8, most)


def test_a_named_backend_is_left_alone(make_bundle):
    settings = ProfileSettings(backend="tensorrt")
    assert settle([make_bundle()], settings) is settings


def test_auto_becomes_the_backend_that_runs(make_bundle, capsys):
    assert settle([make_bundle()], ProfileSettings(backend="auto")).backend == "cpu"
    assert capsys.readouterr().err == "backend cpu: there is no GPU to use\n"


def test_auto_among_several_counts_once(make_bundle, capsys):
    settings = ProfileSettings(backend="cpu,auto")
    assert settle([make_bundle()], settings).backends == ("cpu",)
    assert settle([make_bundle()], ProfileSettings(backend="auto,cuda")).backends == ("cpu", "cuda")


@pytest.mark.parametrize("backend", ["cpu,cpu", "cpu,", ",", "", "cpu, cpu"])
def test_backends_that_are_named_twice_or_not_at_all(backend):
    with pytest.raises(VptkitError, match=r"several different ones .* as cpu,openvino"):
        _ = ProfileSettings(backend=backend).backends


def test_baselines_get_engines_and_bundles_do_not(fake_gpu, make_bundle, capsys):
    bundle, baseline = make_bundle(), make_bundle("other")
    settings = ProfileSettings(backend="tensorrt", rounds=3, memory=False)
    with pytest.raises(MissingError, match=f"no engine.*vptkit build {bundle}"):
        profile_bundles([bundle], settings, baselines=[{"bare": baseline}])
    assert list_engines(open_bundle(baseline))
    build_engine(open_bundle(bundle), BuildOptions(batch=(1, 2, 4), workspace_mb=64))
    auto = replace(settings, backend="auto")
    rows = profile_bundles([bundle], auto, baselines=[{"bare": baseline}])["rows"]
    # Engines are compared that were built alike.
    options = [list_engines(open_bundle(b))[0].record["options"] for b in (bundle, baseline)]
    assert options[0] == options[1]
    assert [shape[0] for shape in options[1]["profile"]["images"]] == [1, 2, 4]
    assert options[1]["workspace_mb"] == 64
    assert [(row["kind"], row["backend"]) for row in rows] == [
        ("adapter", "tensorrt"),
        ("baseline", "tensorrt"),
    ]
