"""`vptkit profile --loadgen`: what its options go with, and one run of LoadGen beside our own rounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vptkit.atomic_files import require_absent
from vptkit.cli.shared.option_effect import Rule
from vptkit.errors import VptkitError
from vptkit.shown_text import tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vptkit.runtime.loadgen.loadgen_settings import LoadGenSettings
    from vptkit.runtime.profile.settings import ProfileSettings

__all__ = ["LOADGEN_RULES", "LoadGenRun", "loadgen_run"]

_SETTINGS = ("accuracy", "latency_bound_ms", "queries", "min_duration", "target_qps")
LOADGEN_RULES = (
    Rule((*_SETTINGS, "loadgen_logs"), "--loadgen SCENARIO", lambda s: s["loadgen"]),
    Rule(("data",), "--parts or --loadgen SCENARIO", lambda s: s["parts"] or s["loadgen"]),
    Rule(
        (
            *("seconds", "rounds", "seed", "cuda_graph", "streams", "energy", "memory", "plot"),
            *("power", "pin_clocks", "baseline"),
        ),
        "a measurement, and --accuracy measures nothing",
        lambda s: not s["accuracy"],
        "Leave it or --accuracy away.",
    ),
)
_LOGS = Path("loadgen-logs")


class LoadGenRun(NamedTuple):
    """What LoadGen is asked, and where its files go."""

    settings: LoadGenSettings
    logs: Path
    data: Path | None
    force: bool

    def run(self, bundle: Path, profile: ProfileSettings) -> dict[str, Any]:
        """Have LoadGen ask a bundle; its document.

        Ctrl-C ends the process at once, as LoadGen's clock cannot be stopped.
        """
        from vptkit.runtime.loadgen.run_loadgen import run_loadgen
        from vptkit.runtime.session.factory import open_session

        with open_session(
            bundle, profile.backend, profile.threads, trust_engines=profile.trust_engines
        ) as session:
            try:
                return run_loadgen(
                    session,
                    self.settings,
                    self.logs,
                    adapter=profile.adapter,
                    data=self.data,
                    force=self.force,
                )
            except KeyboardInterrupt:
                tell("interrupted")
                os._exit(130)


def loadgen_run(options: Mapping[str, Any], sizes: Sequence[int] | None) -> LoadGenRun | None:
    """The run that the command's options ask for, looked at before anything is measured.

    Args:
        options: of the command, by name; `LOADGEN_RULES` hold.
        sizes: of --batch.

    Returns:
        None without --loadgen.

    Raises:
        VptkitError: options that contradict each other, numbers out of range, no such data.
        OutputError: the folder for LoadGen's files exists.
        MissingExtraError: LoadGen is not installed.
    """
    if options["loadgen"] is None:
        return None
    from vptkit.runtime.loadgen.loadgen_settings import LoadGenSettings
    from vptkit.runtime.loadgen.run_loadgen import require_loadgen

    _require_one_bundle(options)
    if sizes is not None and len(sizes) > 1:
        raise VptkitError("--loadgen takes one --batch")
    given = {name: options[name] for name in _SETTINGS}
    size = sizes[0] if sizes else None
    settings = LoadGenSettings(scenario=options["loadgen"], batch=size, **given)
    data, logs = options["data"], options["loadgen_logs"] or _LOGS
    if data is not None and not data.exists():
        raise VptkitError(f"--data {data}: no such file or folder")
    if settings.accuracy and data is None:
        raise VptkitError("--accuracy needs --data FOLDER: images whose classes are known")
    require_loadgen()
    require_absent(logs, force=options["force"])
    return LoadGenRun(settings, logs, data, options["force"])


def _require_one_bundle(options: Mapping[str, Any]) -> None:
    refused = {
        "--on": options["on"],
        "--power": options["power"],
        "--pin-clocks": options["pin_clocks"],
        "--baseline": options["baseline"],
        "a second BUNDLE": options["bundles"][1:],
    }
    for name, value in refused.items():
        if value:
            raise VptkitError(
                f"--loadgen does not go with {name}: it asks one bundle, on this machine as it is"
            )
