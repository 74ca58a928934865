"""Folders, package map, links and the wheel hold together: one import name, `vptkit`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.children import run_child

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS = ("tune", "export", "runtime", "devices")


def modules() -> list[str]:
    """Every module as a wheel holds it, vptkit/ROOM/PACKAGE/NAME.py; links are not followed."""
    found = []
    for folder in ("vptkit", *ROOMS):
        for path in (ROOT / folder).rglob("*.py"):
            if not any(parent.is_symlink() for parent in path.parents):
                place = path.relative_to(ROOT).as_posix()
                found.append(place if folder == "vptkit" else f"vptkit/{place}")
    return sorted(found)


def test_every_package_is_listed():
    """One that is not listed would be missing in the wheel."""
    packages = {place.rpartition("/")[0].replace("/", ".") for place in modules()}
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages)
    assert SETUPTOOLS["package-dir"] == {f"vptkit.{room}": room for room in ROOMS}


def test_every_folder_of_modules_is_a_package():
    folders = {place.rpartition("/")[0] for place in modules()}
    assert folders == {place.rpartition("/")[0] for place in modules() if "__init__" in place}


def test_every_folder_of_code_is_in_the_map():
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == {"vptkit", *SETUPTOOLS["package-dir"].values()}


@pytest.mark.parametrize("room", ROOMS)
def test_each_link_leads_to_its_folder(room):
    link = ROOT / "vptkit" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
    assert link.resolve() == ROOT / room
    assert importlib.import_module(f"vptkit.{room}").__name__ == f"vptkit.{room}"


def test_there_are_no_other_links():
    links = {path.name for path in (ROOT / "vptkit").iterdir() if path.is_symlink()}
    assert links == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_generic_name_is_importable(room):
    code = f"import importlib.util as u; raise SystemExit(u.find_spec('{room}') is not None)"
    run_child([sys.executable, "-c", code], cwd="/")


def test_the_version_is_one():
    import vptkit

    assert vptkit.__version__ == PROJECT["project"]["version"]


# the wheel ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names in a wheel built from a copy of the checkout."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed here")
    import setuptools

    if int(re.match(r"\d+", setuptools.__version__).group()) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is older than 77")
    copy, out = tmp_path_factory.mktemp("checkout") / "vptkit", tmp_path_factory.mktemp("wheel")
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("vptkit", *ROOMS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skip)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--quiet", "--no-index", "-w", str(out), str(copy)]
    done = run_child(command, check=False, cwd=out)
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed here")
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def test_the_wheels_top_level_is_vptkit_alone(wheel):
    version = PROJECT["project"]["version"]
    top = {name.partition("/")[0] for name in wheel}
    assert top == {"vptkit", f"vptkit-{version}.dist-info"}


def test_the_wheel_holds_every_module_once(wheel):
    assert len(wheel) == len(set(wheel))
    assert sorted(name for name in wheel if name.endswith(".py")) == modules()


def test_the_wheel_holds_its_data(wheel):
    assert "vptkit/py.typed" in wheel
    for folder in ("vptkit/assets", "vptkit/pages/templates", "vptkit/report/templates"):
        for path in (ROOT / folder).rglob("*.*"):
            assert str(path.relative_to(ROOT)) in wheel
    for path in (ROOT / "tune" / "training_page" / "templates").iterdir():
        assert f"vptkit/tune/training_page/templates/{path.name}" in wheel
    for path in (ROOT / "devices" / "boards").glob("*.toml"):
        assert f"vptkit/devices/boards/{path.name}" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
