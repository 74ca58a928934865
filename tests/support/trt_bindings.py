"""The real Python bindings of six TensorRT versions and of TensorRT-RTX, read without a GPU.

A wheel of bindings is about 1 MB and holds no library: it links a dozen C functions. Empty libraries
that define just those let the module load, and then every class, method, enum and signature can be
listed. Nothing can be built or run that way. Each version is loaded in a process of its own, once:
the list is kept as JSON.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support.downloads import PIP, Unavailable, cache_folder, call, staged

__all__ = ["RTX", "VERSIONS", "Api", "accepts", "bindings", "parameters", "returned"]

RTX = "rtx"
# Version → requirement. JetPack 6.0 has 8.6, 6.1 and later 10.3, 7.0 10.13, 7.2 10.16; servers 11.
VERSIONS = {
    "8.6": "tensorrt-bindings==8.6.1",
    "10.0": "tensorrt-cu12-bindings==10.0.1",
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.13": "tensorrt-cu12-bindings==10.13.3.*",
    "10.16": "tensorrt-cu12-bindings==10.16.1.*",
    "11.4": "tensorrt-cu12-bindings==11.4.0.*",
    RTX: "tensorrt_rtx_bindings",  # installed or not: `pip install -e ".[trt-rtx]"`
}

# Class name ("" is the module itself) → member → its signatures, as pybind11 writes them.
Api = dict[str, dict[str, list[str]]]

_DUMP = r"""
import importlib, json, re, sys
if sys.argv[2]:
    sys.path.insert(0, sys.argv[2])
trt = importlib.import_module(sys.argv[1])
def signatures(name, thing):
    lines = (getattr(thing, "__doc__", None) or "").splitlines()
    found = [re.match(r"\s*(?:\d+\. )?(" + re.escape(name) + r"\(.*)", line) for line in lines]
    found = [match[1] for match in found if match]
    plain = [text for text in found if not text.startswith(name + "(*args, **kwargs)")]
    return plain
api = {"": {}}
for name in dir(trt):
    thing = getattr(trt, name)
    api[""][name] = signatures(name, thing)
    if isinstance(thing, type):
        api[name] = {m: signatures(m, getattr(thing, m, None)) for m in dir(thing)}
api[""]["__version__"] = [trt.__version__]
sys.stdout.write(json.dumps(api, sort_keys=True))
"""


def bindings(version: str) -> Api:
    """Everything that one of VERSIONS offers.

    Raises:
        Unavailable: no wheel for this Python, no network, or no C compiler.
    """
    found = _attempt(version)
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@functools.cache
def _attempt(version: str) -> Api | str:
    """The list, or why there is none; a failure is not tried again."""
    try:
        return _installed() if version == RTX else _fetched(version)
    except Unavailable as reason:
        return str(reason)


def _installed() -> Api:
    if importlib.util.find_spec(VERSIONS[RTX]) is None:
        raise Unavailable('TensorRT-RTX is not installed: pip install -e ".[trt-rtx]"')
    return _loaded(call(sys.executable, "-c", _DUMP, VERSIONS[RTX], ""))


def _fetched(version: str) -> Api:
    digest = hashlib.sha256((VERSIONS[version] + _DUMP).encode()).hexdigest()[:8]
    kept = cache_folder() / f"tensorrt-{version}-{digest}"
    if not (kept / "api.json").is_file():
        with staged(kept) as stage, tempfile.TemporaryDirectory() as scratch:
            (stage / "api.json").write_text(_listed(VERSIONS[version], Path(scratch)))
    return _loaded((kept / "api.json").read_text())


def _loaded(text: str) -> Api:
    api: Api = json.loads(text)
    return api


def _listed(requirement: str, folder: Path) -> str:
    call(*PIP, "download", "--no-deps", "--only-binary=:all:", "-d", folder, requirement)
    (wheel,) = folder.glob("*.whl")
    inside = folder / "wheel"
    zipfile.ZipFile(wheel).extractall(inside)
    (module,) = inside.glob("*/tensorrt.so")
    stubs = _stub_libraries(module, folder / "stubs")
    return call(
        *(sys.executable, "-c", _DUMP, module.parent.name, inside), LD_LIBRARY_PATH=str(stubs)
    )


def _stub_libraries(module: Path, folder: Path) -> Path:
    """Libraries of the names that a module needs, with functions that return NULL."""
    folder.mkdir()
    symbols = re.findall(r" U (\w+)$", call("nm", "-D", module), flags=re.MULTILINE)
    wanted = [name for name in symbols if not name.startswith(("Py", "_Py"))]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for name in re.findall(r"\[(libnv\w+\.so\.\d+)\]", call("readelf", "-d", module)):
        soname = f"-Wl,-soname,{name}"
        call("gcc", "-shared", "-fPIC", "-w", soname, "-o", folder / name, source)
    return folder


# signatures ---------------------------------------------------------------------------------------


def returned(signatures: list[str]) -> str | None:
    """The class that a method returns, if its signatures tell: "IBuilderConfig"."""
    for text in signatures:
        match = re.search(r"\) -> (?:Optional\[)?([\w.:]+)\]?$", text.strip())
        if match:
            return re.split(r"\.|::", match[1])[-1]
    return None


def accepts(signatures: list[str], positional: int, keywords: tuple[str, ...]) -> bool:
    """Whether some signature of a method takes so many arguments and these keywords."""
    return not signatures or any(_accepts(text, positional, keywords) for text in signatures)


def parameters(signature: str) -> dict[str, bool]:
    """The names that a signature takes, without `self` → whether each has a default."""
    parts = [part.strip() for part in _split(signature[signature.index("(") + 1 :])]
    names = {re.split(r"[:=\s]", part)[0]: "=" in part for part in parts if part not in "*/"}
    names.pop("self", None)
    return names


def _accepts(signature: str, positional: int, keywords: tuple[str, ...]) -> bool:
    named = parameters(signature)
    if any(name.startswith("*") for name in named):
        return True
    rest = list(named)[positional:]
    required = [name for name in rest if not named[name]]
    return positional <= len(named) and set(required) <= set(keywords) <= set(rest)


def _split(text: str) -> list[str]:
    """The parameters before the closing parenthesis; `text` begins after the opening one."""
    depth, part, parts = 0, "", []
    for character in text.replace("->", "  "):
        if depth == 0 and character in ",)":
            parts.append(part)
            part = ""
            if character == ")":
                break
            continue
        depth += (character in "([{<") - (character in ")]}>")
        part += character
    return [part for part in parts if part.strip()]
