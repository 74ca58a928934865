"""The architecture as one table: which package imports which; and the picture that is drawn of it.

`tests/test_imports.py` holds the table and the code equal, in-function and type-only imports
included, so whoever reads the table reads the code. `python -m tests.support.architecture` draws
`docs/architecture.svg`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("vptkit", "tune", "export", "runtime", "devices")
PICTURE = ROOT / "docs" / "architecture.svg"

# package → the packages that it imports; names below `vptkit.`. What stands on the same or on a
# higher floor is out of reach. `base` is vptkit's own modules (errors, atomic_files, progress,
# text_table): everybody may import those, so they are not listed. `tune` and `runtime` are the
# modules of these rooms that lie in no package (config, distill; settings).
TABLE: dict[str, str] = {
    # vptkit/: the nouns that all rooms share
    "decoding": "",
    "images": "decoding",
    "scores": "",
    "datasets": "decoding images",
    "arrow_files": "datasets images",
    "pages": "",
    "paths": "decoding images",
    "backbones": "",
    "cluster": "",
    "formats": "backbones images paths",
    "checkpoints": "backbones formats paths",
    # devices/
    "devices.drivers": "",
    "devices.boards": "",
    "devices.probes": "devices.boards devices.drivers",
    "devices.power": "devices.drivers devices.probes",
    # tune/
    "tune": "backbones checkpoints formats images",
    "tune.backbone": "backbones checkpoints formats images paths",
    "tune.data": "arrow_files datasets images paths",
    "tune.methods": "tune tune.backbone backbones formats scores",
    "tune.foreign_tensors": "checkpoints formats",
    "tune.peft_adapters": "tune.foreign_tensors checkpoints formats",
    "tune.importers": "tune.backbone tune.foreign_tensors tune.peft_adapters checkpoints formats images",
    "tune.probe": "scores",
    "tune.training": "tune tune.data tune.methods tune.probe formats images scores",
    "tune.burstiness": "tune.backbone tune.data tune.methods formats images",
    "tune.training_page": "tune.data tune.training images pages scores",
    "tune.phases": "tune tune.burstiness tune.data tune.methods tune.probe tune.training backbones formats images"
    " scores",
    "tune.run": "tune tune.backbone tune.data tune.methods tune.phases tune.training tune.training_page backbones"
    " checkpoints formats images scores",
    "tune.auto": "tune tune.phases tune.run tune.training formats scores",
    "tune.sweep": "tune tune.backbone tune.data tune.phases tune.run tune.training cluster formats",
    # export/
    "export.fold": "backbones formats images",
    "export.graph": "export.fold backbones formats",
    "export.analysis": "export.fold backbones formats",
    "export.numerics": "export.analysis export.graph formats scores",
    "export.precision": "export.analysis export.numerics formats scores",
    "export.bundle": "export.analysis export.fold export.graph export.numerics export.precision"
    " backbones checkpoints formats scores",
    "export.bank": "export.analysis export.bundle export.fold export.graph export.precision backbones"
    " formats images",
    # runtime/
    "runtime": "runtime.profile",
    "runtime.backends": "formats images devices.drivers devices.probes",
    "runtime.stores": "images paths",
    "runtime.inputs": "runtime.stores arrow_files datasets decoding images paths",
    "runtime.session": "runtime.backends runtime.inputs runtime.stores formats images scores"
    " devices.probes",
    "runtime.bulk": "runtime.inputs runtime.session runtime.stores images",
    "runtime.ray_data": "runtime.backends runtime.bulk runtime.inputs runtime.session runtime.stores cluster formats images",
    "runtime.engine_build": "runtime.backends formats devices.boards devices.drivers"
    " devices.probes",
    "runtime.measure": "runtime.backends runtime.session devices.drivers devices.power"
    " devices.probes",
    "runtime.evaluation": "runtime.backends runtime.session datasets formats images paths scores",
    "runtime.loadgen": "runtime.evaluation runtime.measure runtime.session datasets formats images",
    "runtime.layers": "runtime.backends runtime.engine_build runtime.measure runtime.session formats"
    " devices.drivers devices.probes",
    "runtime.profile": "runtime.backends runtime.bulk runtime.engine_build runtime.measure"
    " runtime.session formats images devices.drivers devices.power devices.probes",
    "runtime.streams": "decoding images paths",
    "runtime.frame_answers": "runtime.bulk runtime.measure runtime.session runtime.streams formats images scores"
    " devices.probes",
    "runtime.triton": "runtime.backends runtime.session formats images scores devices.probes",
    "runtime.remote": "runtime.backends runtime.profile formats",
    "runtime.serving": "runtime.session formats images scores",
    "runtime.web": "formats",
    "runtime.http_server": "runtime.serving runtime.session runtime.web formats devices.probes",
    "runtime.doctor": "runtime.backends runtime.measure runtime.session formats devices.boards"
    " devices.drivers devices.probes",
}
# Where the rooms meet. Among themselves as listed; every room, but inside functions only.
ASSEMBLERS: dict[str, str] = {
    "cli.shared": "cli.command_line",
    "cli.texts": "cli.shared",
    "api": "cli.shared",
    "cli.command_line": "",
    "cli.tune_commands": "cli.shared",
    "cli.export_commands": "cli.shared cli.texts",
    "cli.run_command": "api cli.shared",
    "cli.runtime_commands": "api cli.shared cli.texts report",
    "demo": "cli.shared report",
    "report": "api cli.texts",
    "cli": "cli.command_line cli.export_commands cli.run_command cli.runtime_commands cli.shared"
    " cli.tune_commands demo",
}
# The faces: what `import vptkit.ROOM` shows. Nothing below imports them.
FACES = (
    "vptkit",
    "vptkit.__main__",
    "vptkit.tune",
    "vptkit.export",
    "vptkit.report",
    "vptkit.runtime",
    "vptkit.devices",
)


@dataclass(frozen=True, slots=True)
class Module:
    """One file of code.

    Attributes:
        name: dotted, as it is imported.
        path: where it lies.
        package: dotted; of an `__init__` itself.
    """

    name: str
    path: Path
    package: str

    @property
    def place(self) -> str:
        """Its package as the table names it, "base" for vptkit's own modules."""
        return self.package.removeprefix("vptkit").removeprefix(".") or "base"


def modules() -> dict[str, Module]:
    """Every module of the five rooms by dotted name; the links in vptkit/ are not followed."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if room == "vptkit" else ("vptkit", *parts))
            if path.stem == "__init__":
                name = name.removesuffix(".__init__")
                found[name] = Module(name, path, name)
            else:
                found[name] = Module(name, path, name.rpartition(".")[0])
    return found


def imported(module: Module, known: dict[str, Module]) -> set[str]:
    """Modules of ours that a module imports, anywhere in it: dotted names.

    "module:name" is an import, too, which `vptkit.cli.command_line.lazy_commands` does.
    """
    found = set()
    for node in ast.walk(ast.parse(module.path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.partition(":")[0] if ":" in node.value else "")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, (module.package, node.module)))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return found & set(known)


def edges() -> dict[str, set[str]]:
    """Package → packages that its modules import, as in `TABLE`; faces and base left out."""
    known = modules()
    found: dict[str, set[str]] = {m.place: set() for m in known.values() if m.name not in FACES}
    for module in known.values():
        if module.name in FACES:
            continue
        for name in imported(module, known):
            place = known[name].place
            if name not in FACES and place not in (module.place, "base"):
                found[module.place].add(place)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another; none in a house of floors."""
    reach = {node: set(graph[node]) for node in graph}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {
        tuple(sorted({node, *(o for o in reach[node] if node in reach.get(o, ()))}))
        for node in graph
        if node in reach[node]
    }
    return [list(group) for group in sorted(groups)]


# the picture --------------------------------------------------------------------------------------

_W, _H, _GAP, _STEP = 138, 40, 14, 84  # of a box, between boxes, between floors
_COLOURS = {"tune": "#e8f1fb", "export": "#eaf5ea", "runtime": "#fdf1e3", "devices": "#f4ecf7"}
_FONT = 'font-family="DejaVu Sans, Verdana, sans-serif"'


def floors(room: str) -> list[list[str]]:
    """The packages of a room, lowest floor first: each above all that it imports."""
    names = [n for n in TABLE if n == room or n.startswith(f"{room}.")]
    level: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in level:
            below = [height(n) for n in TABLE[name].split() if n in names]
            level[name] = 1 + max(below, default=-1)
        return level[name]

    top = max(map(height, names))
    return [[n for n in names if level[n] == i] for i in range(top + 1)]


def direct(room: str) -> list[tuple[str, str]]:
    """In-room imports that no other in-room import already implies."""
    names = {n for floor in floors(room) for n in floor}
    below = {n: {m for m in TABLE[n].split() if m in names} for n in names}

    def reach(name: str) -> set[str]:
        return below[name] | {m for n in below[name] for m in reach(n)}

    return sorted(
        (n, m) for n in names for m in below[n] if not any(m in reach(o) for o in below[n])
    )


def draw() -> str:
    """The table as an SVG: a column a room, a floor a step, arrows to what is imported."""
    rooms = ("tune", "export", "runtime", "devices")
    height = max(len(floors(room)) for room in rooms)
    bottom = 96 + height * _STEP
    parts: list[str] = []
    left = 20
    for room in rooms:
        stack = floors(room)
        width = max(map(len, stack)) * (_W + _GAP) + _GAP
        parts.append(_box(left, 76, width, bottom - 76, _COLOURS[room], "#c8c8c8"))
        parts.append(_text(left + width / 2, 96, f"{room}/", 15, "bold"))
        at: dict[str, tuple[float, float]] = {}
        for floor, names in enumerate(stack):
            first = left + (width - len(names) * (_W + _GAP) + _GAP) / 2
            for i, name in enumerate(names):
                at[name] = (first + i * (_W + _GAP), bottom - 14 - _H - floor * _STEP)
        for upper, lower in direct(room):
            (x1, y1), (x2, y2) = at[upper], at[lower]
            parts.append(_arrow(x1 + _W / 2, y1 + _H, x2 + _W / 2, y2))
        for name, (x, y) in at.items():
            others = [n for n in TABLE[name].split() if not n.startswith(room)]
            parts.append(_box(x, y, _W, _H, "#ffffff", "#555555"))
            shown = name.partition(".")[2] or {"tune": "config", "runtime": "settings"}[name]
            parts.append(_text(x + _W / 2, y + (17 if others else 25), shown, 13, "bold"))
            short = " ".join(n.removeprefix("devices.") for n in others)
            parts.append(_text(x + _W / 2, y + 32, short, 8.5, colour="#777777"))
        left += width + 20
    whole = left - 20
    parts.append(_box(20, 14, whole - 20, 48, "#f2f2f2", "#c8c8c8"))
    top = "vptkit/ api · cli · demo · report   where the rooms meet: they import any room, inside functions only"
    parts.append(_text(20 + (whole - 20) / 2, 43, top, 13, "bold"))
    parts.append(_box(20, bottom + 14, whole - 20, 48, "#f2f2f2", "#c8c8c8"))
    base = (
        "vptkit/ formats → images · scores → errors, atomic_files, progress, text_table"
        "   (all may import)"
    )
    parts.append(_text(20 + (whole - 20) / 2, bottom + 43, base, 13, "bold"))
    body = "\n".join(part for part in parts if part)
    size = f'width="{whole + 20:g}" height="{bottom + 80:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {_FONT}>\n{_MARKER}\n'
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>\n'
    return f"{head}{paper}{body}\n</svg>\n"


_MARKER = (
    '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#555555"/></marker></defs>'
)


def _box(x: float, y: float, width: float, height: float, fill: str, edge: str) -> str:
    shape = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"'
    return f'<rect {shape} fill="{fill}" stroke="{edge}"/>'


def _text(
    x: float, y: float, text: str, size: float, weight: str = "normal", colour: str = "#222222"
) -> str:
    if not text:
        return ""
    style = f'font-size="{size:g}" font-weight="{weight}" fill="{colour}" text-anchor="middle"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (y2 - y1) / 2
    path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path d="{path}" fill="none" stroke="#555555" marker-end="url(#a)"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
