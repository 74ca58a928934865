"""`--adapter birds`, or `--adapter cam1=birds,cam2=cars`: which adapter a source is asked of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.errors import VptkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vptkit.formats.bundle import Bundle

__all__ = ["adapters_of"]


def adapters_of(text: str | None, names: Sequence[str], bundle: Bundle) -> dict[str, str]:
    """The adapter of each source.

    Args:
        text: an adapter for all, or SOURCE=ADAPTER pairs with commas between; None takes the only
            one.
        names: of the sources.
        bundle: whose adapters they are.

    Raises:
        BundleError: no such adapter, or there are several and none is named.
        VptkitError: a source is named that is not there, twice, or left out.
    """
    if text is None or "=" not in text or text in bundle.adapter_names:
        adapter = str(bundle.entry(text)["name"])
        return dict.fromkeys(names, adapter)
    found: dict[str, str] = {}
    for pair in text.split(","):
        source, _, adapter = (part.strip() for part in pair.rpartition("="))
        if source not in names:
            raise VptkitError(
                f"--adapter {pair.strip()!r}: expected SOURCE=ADAPTER with one of the sources "
                f"{', '.join(names)}. cam1=rtsp://… gives a source a name."
            )
        if source in found:
            raise VptkitError(f"--adapter: the source {source} is named twice")
        found[source] = str(bundle.entry(adapter)["name"])
    if missing := [name for name in names if name not in found]:
        raise VptkitError(
            f"--adapter: names none for {', '.join(missing)}. Add {missing[0]}=ADAPTER, one of "
            f"{', '.join(bundle.adapter_names)}."
        )
    return found
