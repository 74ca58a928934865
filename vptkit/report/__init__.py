"""`vptkit report`: one HTML page about bundles that one can send to a colleague.

What a part says is gathered first, as plain data; templates and figures only show it.

- `accuracy_latency_plot`: accuracy over latency, of the demo and of bundles side by side.
- `board_predictions`: latency on boards that nobody measured, and how far that is off.
- `bundle_facts`: what a bundle is, from its manifest.
- `make_report`: `report`; the parts in order, and the file.
- `measured_layers`: where the time goes, given or measured now.
- `measured_speed`: profiles, given or measured now.
- `nearest_images`: the training image that is most like another one.
- `page`: the template, and what it lets through.
- `quality_facts`: how good a bundle is on labelled images.
- `quality_plots`: accuracy by class, and what was said with which confidence.
- `report_settings`: what a report is asked for.
- `side_by_side`: several bundles in one table and one picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.api.callable_rooms import CallableRoom, make_callable
from vptkit.api.lazy_names import lazy_names

if TYPE_CHECKING:
    from vptkit.report.make_report import report
    from vptkit.report.report_settings import ReportSettings

__all__ = ["ReportSettings", "report"]

_PLACES = {
    "ReportSettings": "vptkit.report.report_settings",
    "report": "vptkit.report.make_report",
}


class ReportRoom(CallableRoom):
    """This package, as type checkers see it in `vptkit/__init__.py`."""

    if TYPE_CHECKING:
        ReportSettings: type[ReportSettings]
        report = staticmethod(report)
        __call__ = staticmethod(report)


if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _PLACES)
make_callable(__name__, ReportRoom)
