"""`vptkit.check`, `vptkit.evaluate`, `vptkit.profile`: of a folder's name or an open session."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from vptkit.api.judging import baselines_of, check, evaluate, profile
from vptkit.errors import BundleError, GateError, VptkitError
from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation
from vptkit.runtime.profile.settings import ProfileSettings
from vptkit.runtime.session.factory import open_session


@pytest.mark.parametrize("make", [str, lambda path: path, open_session])
def test_check(make_bundle, make):
    parity = check(make(make_bundle()))
    assert parity.ok
    assert parity.count == 5


def test_check_raises_where_answers_differ(make_bundle):
    with pytest.raises(GateError, match="differs from the golden answers"):
        check(make_bundle(shift=1.0), backend="cpu", threads=1)
    assert check(make_bundle(shift=1.0), tolerance=1.0).ok


@pytest.mark.parametrize("make", [str, lambda path: path, open_session])
def test_evaluate(make_bundle, colour_folders, make):
    found = evaluate(make(make_bundle()), str(colour_folders))
    assert found.count == 12
    assert found.top1 == pytest.approx(11 / 12)


def test_a_session_of_ones_own_stays_open_and_another_is_closed(
    make_bundle, colour_folders, monkeypatch
):
    closed = []
    kind = type(open_session(make_bundle()))
    whole = kind.close
    monkeypatch.setattr(kind, "close", lambda self: closed.append(self) or whole(self))
    session = open_session(make_bundle())
    evaluate(session, colour_folders)
    check(session)
    assert closed == []
    evaluate(make_bundle(), colour_folders)
    check(make_bundle())
    assert len(closed) == 2


@pytest.mark.parametrize("option", [{"backend": "cpu"}, {"threads": 1}, {"trust_engines": True}])
def test_how_to_open_goes_with_a_folder(make_bundle, colour_folders, option):
    session = open_session(make_bundle())
    for ask in (lambda: check(session, **option), lambda: evaluate(session, ".", **option)):
        with pytest.raises(VptkitError, match=f"{next(iter(option))}: goes with the folder"):
            ask()


def test_no_bundle():
    with pytest.raises(BundleError):
        check("nowhere.vptk")


@pytest.mark.slow
@pytest.mark.parametrize("make", [str, lambda path: path, lambda path: [str(path), path]])
def test_profile(make_bundle, make):
    report = profile(make(make_bundle()), rounds=2, memory=False, threads=1)
    assert {Path(row["name"]).name.partition("-")[0] for row in report["rows"]} == {"tiny"}


def test_profile_takes_settings_and_what_changes_them(make_bundle, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vptkit.runtime.profile.run_profile.profile_bundles", lambda *a, **b: asked.append(a)
    )
    profile("a.vptk", ProfileSettings(rounds=3, batches=(1, 8)), seed=4)
    assert asked[0][1] == ProfileSettings(rounds=3, batches=(1, 8), seed=4)
    with pytest.raises(VptkitError, match="'round' is not known"):
        profile("a.vptk", round=3)


def test_profile_takes_the_default_backend(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vptkit.runtime.profile.run_profile.profile_bundles", lambda *a, **b: asked.append(a[1])
    )
    monkeypatch.setenv("VPTKIT_BACKEND", "cuda")
    profile("a.vptk", rounds=3)
    profile("a.vptk", backend="tensorrt")
    profile("a.vptk", ProfileSettings(backend="cpu"))
    assert [settings.backend for settings in asked] == ["cuda", "tensorrt", "cpu"]


def test_baselines_live_as_long_as_the_block(make_bundle, monkeypatch):
    pytest.importorskip("onnx")

    def made(bundle, folder):
        (folder / "bare").mkdir()
        return {"bare": folder / "bare"}

    monkeypatch.setattr("vptkit.export.bundle.baselines.export_baselines", made)
    with baselines_of([make_bundle(), make_bundle()]) as named:
        paths = [named[i]["bare"] for i in range(2)]
        assert all(path.is_dir() for path in paths)
    assert not any(path.exists() for path in paths)
    with baselines_of([]) as named:
        assert named == []


def test_a_profile_with_baselines_asks_for_those_of_each(make_bundle, monkeypatch):
    monkeypatch.setattr(
        "vptkit.export.bundle.baselines.export_baselines", lambda bundle, folder: {"bare": bundle}
    )
    asked = []
    monkeypatch.setattr(
        "vptkit.runtime.profile.run_profile.profile_bundles",
        lambda bundles, _, *, baselines, progress: asked.append((bundles, baselines)),
    )
    bundle = make_bundle()
    profile(bundle, baseline=True)
    assert asked == [([bundle], [{"bare": bundle}])]


def test_the_defaults_are_those_of_the_commands():
    from vptkit.cli.runtime_commands import check as check_module
    from vptkit.cli.runtime_commands import evaluate as evaluate_module
    from vptkit.cli.runtime_commands import profile as profile_module

    for ours, theirs in (
        (check, check_module.check),
        (
            evaluate,
            next(f for n, f in vars(evaluate_module).items() if n in evaluate_module.__all__),
        ),
    ):
        command = inspect.signature(theirs).parameters
        for name, parameter in inspect.signature(ours).parameters.items():
            if name in command and name not in ("bundle", "data", "backend"):
                assert parameter.default == command[name].default, name
    # None is what open_session takes, and that is the command's
    opening = inspect.signature(open_session).parameters["backend"].default
    assert opening == inspect.signature(check_module.check).parameters["backend"].default
    command = inspect.signature(profile_module.profile).parameters
    for field in fields(ProfileSettings):
        if (
            field.name in command and field.name != "backend"
        ):  # `test_profile_takes_the_default_backend`
            assert field.default == command[field.name].default, field.name


def test_evaluate_of_several_labels_an_image(make_bundle, colour_folders):
    found = evaluate(make_bundle(thresholds=(0.5, 0.5, 0.5)), colour_folders)
    assert isinstance(found, MultilabelEvaluation)
    assert found.count == 12
