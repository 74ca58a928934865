"""Which names of TensorRT a source file touches in one version of TensorRT, and what is wrong there.

An object is known by its variable's name (CONVENTION, with or without leading underscores, also as
an attribute of `self`), by `trt.Class(...)`, or by the method that returned it; a parameter that is
annotated otherwise is none of TensorRT's. `hasattr` in an `if` is answered from the version's own
list, so that what stands under it counts only for the versions that get there.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.trt_bindings import accepts, returned

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.support.trt_bindings import Api

__all__ = ["COMPUTED", "Use", "findings", "members", "own_names", "uses"]

# Variable → class; "" is the module.
CONVENTION = {
    "trt": "",
    "logger": "ILogger",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timing_cache": "ITimingCache",
    "plan": "IHostMemory",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "tensor": "ITensor",
    "monitor": "IProgressMonitor",
    "profiler": "IProfiler",
}
# What a subclass must define, for TensorRT calls it; all of it pure virtual in C++.
_ABSTRACT = {
    "ILogger": ("log",),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "IProfiler": ("report_layer_time",),
}
# The name of a `getattr` that is not written in the source
COMPUTED = "<computed>"
_SILENT = {"Any", "ModuleType", "None"}
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One name of TensorRT in a source file.

    Attributes:
        owner: the class, "" for the module.
        name: the member, or COMPUTED.
        line: in the file.
        asked: by `hasattr`, or by `getattr` with a default: it need not exist.
        positional, keywords: of a call; None if it is none, or not one whose arguments can be counted.
    """

    owner: str
    name: str
    line: int
    asked: bool = False
    positional: int | None = None
    keywords: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """As a reader would write it: "IBuilderConfig.set_flag", "IProgressMonitor"."""
        return f"{self.owner}.{self.name}" if self.owner else self.name


def uses(source: str, api: Api) -> list[Use]:
    """Every use that can be reached in a version, in the order of the lines."""
    walker = _Walker(api)
    walker.visit(ast.parse(source))
    return sorted(walker.found, key=lambda use: (use.line, use.key))


def findings(
    source: str, api: Api, version: str, own: Mapping[str, Collection[str]] | None = None
) -> list[str]:
    """What is wrong with a source text for one version of TensorRT.

    Args:
        source: Python.
        api: of the version.
        version: its name, for the messages.
        own: class → names that vptkit's subclasses add to it.
    """
    wrong = [text for use in uses(source, api) for text in _wrong_use(use, api, version, own or {})]
    return wrong + [
        f"line {node.lineno}: class {node.name} does not define {owner}.{name} as TensorRT "
        f"{version} calls it"
        for owner, node in _subclasses(source)
        for name in _ABSTRACT.get(owner, ())
        if owner in api and not _defines(node, name, api[owner].get(name, []))
    ]


def own_names(source: str) -> dict[str, set[str]]:
    """TensorRT's class → public names that subclasses of it in a source define."""
    found: dict[str, set[str]] = {}
    for owner, node in _subclasses(source):
        found.setdefault(owner, set()).update(members(node))
    return found


def members(node: ast.ClassDef) -> set[str]:
    """Public methods, class attributes (also `A, B = ...`) and what methods store in `self`."""
    names = {item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.ClassDef))}
    for item in node.body:
        for target in item.targets if isinstance(item, ast.Assign) else ():
            names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store):
            names |= {item.attr} if ast.unparse(item.value) == "self" else set()
    return {name for name in names if not name.startswith("_")}


def _wrong_use(use: Use, api: Api, version: str, own: Mapping[str, Collection[str]]) -> list[str]:
    where, known = f"line {use.line}: TensorRT {version}", api.get(use.owner, {})
    if use.name not in known:
        fine = use.asked or use.name in own.get(use.owner, ())
        return [] if fine else [f"{where} has no {use.key}"]
    constructed = not use.owner and use.name in api
    signatures = api[use.name].get("__init__", []) if constructed else known[use.name]
    if use.positional is None or accepts(signatures, use.positional, use.keywords):
        return []
    called = ", ".join([str(use.positional), *use.keywords])
    return [f"{where} takes {use.key} as {signatures}, called with {called}"]


def _subclasses(source: str) -> list[tuple[str, ast.ClassDef]]:
    return [
        (base.attr, node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Attribute) and _variable(base.value) == "trt"
    ]


def _defines(node: ast.ClassDef, name: str, signatures: list[str]) -> bool:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == name:
            return accepts(signatures, len(item.args.args) - 1, ())
    return False


class _Walker(ast.NodeVisitor):
    """Collects uses; branches that a version never takes are left out."""

    def __init__(self, api: Api) -> None:
        self.found: list[Use] = []
        self._api = api
        # variable → class, None for what is not TensorRT's; goes before CONVENTION
        self._types: dict[str, str | None] = {}

    # what an expression is ------------------------------------------------------------------------

    def _owner(self, node: ast.expr) -> str | None:
        """The class that an expression is, or is an instance of; None if it is not TensorRT's."""
        if isinstance(node, ast.Call):
            return self._result(node.func)
        if isinstance(node, ast.Attribute) and self._owner(node.value) == "":
            return node.attr if node.attr in self._api else None
        name = _variable(node)
        return None if name is None else self._types.get(name, CONVENTION.get(name))

    def _result(self, function: ast.expr) -> str | None:
        owner = self._owner(function.value) if isinstance(function, ast.Attribute) else None
        if owner is None or not isinstance(function, ast.Attribute):
            return None
        if not owner:
            return function.attr if function.attr in self._api else None
        kind = returned(self._api.get(owner, {}).get(function.attr, [])) or "?"
        # the parser's errors are a class of another name in C++
        return next((name for name in (kind, kind[1:]) if name and name in self._api), None)

    # uses -----------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._use(node, None)
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Name) and function.id in ("getattr", "hasattr"):
            self._by_name(node, asked=function.id == "hasattr" or len(node.args) > 2)
        if isinstance(function, ast.Attribute):
            self._use(function, node)
            self.visit(function.value)
        for argument in (*node.args, *node.keywords):
            self.visit(argument)

    def _use(self, node: ast.Attribute, called: ast.Call | None) -> None:
        owner = self._owner(node.value)
        if owner is None:
            return
        unbound = isinstance(node.value, ast.Attribute) and self._owner(node.value.value) == ""
        count, keywords = _arguments(None if unbound else called)
        self.found.append(
            Use(owner=owner, name=node.attr, line=node.lineno, positional=count, keywords=keywords)
        )

    def _by_name(self, node: ast.Call, *, asked: bool) -> None:
        owner, named = self._owner(node.args[0]), node.args[1]
        written = isinstance(named, ast.Constant)
        if owner is not None and (written or not asked):
            name = str(named.value) if isinstance(named, ast.Constant) else COMPUTED
            self.found.append(Use(owner=owner, name=name, line=node.lineno, asked=asked))

    # variables ------------------------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        name = _variable(node.targets[0])
        if name is not None:
            self._types.pop(name, None)
            kind = self._owner(node.value)
            if kind:
                self._types[name] = kind

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        known, self._types = self._types, dict(self._types)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            names = {n.id for n in ast.walk(argument) if isinstance(n, ast.Name)} - _SILENT
            self._types.pop(argument.arg.lstrip("_"), None)
            if names and "trt" not in names:
                self._types[argument.arg.lstrip("_")] = None
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        self._block(node.body)
        self._types = known

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self.visit(base)
        self._block(node.body)

    # guards ---------------------------------------------------------------------------------------

    def _holds(self, test: ast.expr) -> bool | None:
        """Whether a condition is true in this version; None if it depends on something else."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self._holds(test.operand)
            return None if inner is None else not inner
        if isinstance(test, ast.Call) and ast.unparse(test.func) == "hasattr":
            owner, named = self._owner(test.args[0]), test.args[1]
            if owner is not None and isinstance(named, ast.Constant):
                return named.value in self._api.get(owner, {})
        return None

    def visit_Module(self, node: ast.Module) -> None:
        self._block(node.body)

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        """Statements in order, as far as this version gets."""
        for statement in statements:
            self.visit(statement)
            if isinstance(statement, ast.If):
                holds = self._holds(statement.test)
                taken = {True: statement.body, False: statement.orelse, None: []}[holds]
                if taken and isinstance(taken[-1], _LEAVES):
                    return

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        holds = self._holds(node.test)
        for branch, dead in ((node.body, False), (node.orelse, True)):
            if holds is not dead:
                for statement in branch:
                    self.visit(statement)


def _variable(node: ast.expr) -> str | None:
    """`engine` of engine, _engine, self.engine and self._engine."""
    if isinstance(node, ast.Name):
        return node.id.lstrip("_")
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
        return node.attr.lstrip("_")
    return None


def _arguments(called: ast.Call | None) -> tuple[int | None, tuple[str, ...]]:
    """Positional arguments and keywords of a call, if it has no `*` and no `**`."""
    if called is None or any(isinstance(value, ast.Starred) for value in called.args):
        return None, ()
    names = [keyword.arg for keyword in called.keywords if keyword.arg is not None]
    return (None, ()) if len(names) < len(called.keywords) else (len(called.args), tuple(names))
