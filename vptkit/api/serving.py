"""`vptkit.serve`: bundles behind HTTP, as by the command of that name."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vptkit.runtime.http_server.application import Application
    from vptkit.runtime.http_server.server_process import ServerSettings

__all__ = ["serve"]


def serve(
    bundles: str | Path | Sequence[str | Path],
    settings: ServerSettings | None = None,
    *,
    ready: Callable[[Application, str], None] | None = None,
    **changes: Any,
) -> None:
    """Serve bundles until SIGTERM or SIGINT; called in the main thread.

    Args:
        bundles: one or more, a model each.
        settings: how; the command's defaults unless given.
        ready: told of the application and its address when it answers.
        changes: fields of `ServerSettings` in the place of those of `settings`, such as port=0.

    Raises:
        MissingExtraError: the extra `serve` is not installed.
        VptkitError: a setting that does not exist; or see
            `vptkit.runtime.http_server.server_process.serve_bundles`.
    """
    from vptkit.cli.shared.output import needs_extra

    with needs_extra("serve", "vptkit serve"):
        from vptkit.runtime.http_server.server_process import ServerSettings, serve_bundles

    from vptkit.export.bank import edit_bank

    known = {field.name for field in fields(ServerSettings)}
    if unknown := sorted(set(changes) - known):
        raise VptkitError(
            f"{unknown[0]}: no such setting, expected one of {', '.join(sorted(known))}"
        )
    several = [bundles] if isinstance(bundles, str | Path) else bundles
    chosen = replace(settings or ServerSettings(), **changes)
    serve_bundles([Path(bundle) for bundle in several], chosen, editor=edit_bank, ready=ready)
