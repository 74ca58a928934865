"""`vptkit profile --layers`: options, files and output of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vptkit.cli.shared.option_effect import Rule
from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vptkit.runtime.layers.layer_time import LayerProfile
    from vptkit.runtime.layers.profile_layers import LayerOptions

__all__ = ["LAYER_OPTIONS", "LAYER_RULES", "emit_layers", "profile_by_layer"]

LAYER_OPTIONS = ("trace", "export_profile", "export_times", "export_layer_info")
_OTHERS = (
    *("accuracy", "clean", "cuda_graph", "data", "energy", "latency_bound_ms", "loadgen"),
    *("loadgen_logs", "min_duration", "on", "pin_clocks", "power", "python", "queries"),
    *("ssh_option", "streams", "target_qps"),
)
LAYER_RULES = (
    Rule(LAYER_OPTIONS, "--layers", lambda settings: bool(settings["layers"])),
    Rule(
        _OTHERS,
        "a profile of whole runs, and --layers takes them apart",
        lambda settings: not settings["layers"],
        "Leave it or --layers away.",
    ),
)


def emit_layers(bundles: Sequence[Path], given: Mapping[str, Any]) -> None:
    """Profile by layer, and print it.

    Args:
        bundles: one or more.
        given: the command's options by name.

    Raises:
        VptkitError: several batch sizes; and see `profile_by_layer`.
    """
    from vptkit.cli.shared.output import emit
    from vptkit.runtime.layers.profile_layers import LayerOptions, layers_backend

    sizes = given["batch"] or "1"
    if not sizes.isdecimal():
        raise VptkitError(f"--batch {sizes}: --layers takes one number, as 8")
    options = LayerOptions(
        backend=layers_backend(bundles[0], given["backend"], given["threads"]),
        threads=given["threads"],
        adapter=given["adapter"],
        batch=int(sizes),
        rounds=given["rounds"],
        seconds=given["seconds"],
        seed=given["seed"],
        trust_engines=given["trust_engines"],
    )
    document, text = profile_by_layer(bundles, options, given)
    emit(document, given["as_json"], text=text)


def profile_by_layer(
    bundles: Sequence[Path], options: LayerOptions, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Profile, write the files that are asked for, and return the report and its text.

    Args:
        bundles: one or more.
        options: how.
        given: the command's options by name: LAYER_OPTIONS, "plot", "baseline", "force".

    Raises:
        VptkitError: files of one bundle are asked for of several.
        OutputError: a file is there already, or cannot be written.
    """
    from vptkit.api.judging import baselines_of
    from vptkit.progress import progress
    from vptkit.runtime.layers.layer_comparison import compared, layers_document
    from vptkit.runtime.layers.layers_text import changes_text, layers_text
    from vptkit.runtime.layers.profile_layers import names_of, profile_layers

    _require_files(given, several=len(bundles) > 1 or given["baseline"])
    with baselines_of(bundles if given["baseline"] else []) as named:
        names = names_of(bundles)
        members = _own_names(names, named) | names
        with progress("layers") as bar:
            profiles = profile_layers(members, options, progress=bar)
    _write(profiles, given)
    texts = [layers_text(profile) for profile in profiles]
    texts += [changes_text(*change) for change in compared(profiles)]
    return layers_document(profiles), "\n\n".join(texts)


def _own_names(
    bundles: Mapping[str, Path], baselines: Sequence[Mapping[str, Path]]
) -> dict[str, Path]:
    """The baselines of each bundle, those whose name is taken with the bundle's behind it."""
    from vptkit.runtime.profile.profiled_sessions import unused_name

    found: dict[str, Path] = {}
    for bundle, named in zip(bundles, baselines, strict=False):  # none, or one for each
        for name, path in named.items():
            found[unused_name(name, f"{name}, {bundle}", {*found, *bundles})] = path
    return found


def _require_files(given: Mapping[str, Any], *, several: bool) -> None:
    from vptkit.atomic_files import require_absent
    from vptkit.plot_text import require_plot

    if given["plot"] is not None:
        require_plot(given["plot"], force=given["force"])
    for name in LAYER_OPTIONS:
        if given[name] is None:
            continue
        if several and name != "trace":
            raise VptkitError(
                f"--{name.replace('_', '-')} writes a file of one bundle: name one, without --baseline"
            )
        require_absent(given[name], force=given["force"])


def _write(profiles: Sequence[LayerProfile], given: Mapping[str, Any]) -> None:
    from vptkit.runtime.layers.layer_plots import plot_layers
    from vptkit.runtime.layers.tool_files import (
        layer_information,
        profile_entries,
        time_entries,
        trace_of,
        write_json,
    )

    if given["plot"] is not None:
        ran = [profile for profile in profiles if profile.runs]
        if not ran:
            raise VptkitError(f"--plot: there are no times to draw: {profiles[0].note}")
        plot_layers(ran, given["plot"])
    if given["trace"] is not None:
        write_json(trace_of(profiles), given["trace"], indent=None)
    kinds: dict[str, Callable[[LayerProfile], object]] = {
        "export_profile": profile_entries,
        "export_times": time_entries,
        "export_layer_info": layer_information,
    }
    for name, made in kinds.items():
        if given[name] is not None:
            write_json(made(profiles[0]), given[name])
