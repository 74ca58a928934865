"""vptkit: deploy Vision Transformers that were adapted by prompts or LayerNorm tuning.

The adapter is compiled away: what ships is one static ONNX graph that costs no more than the
backbone alone.

Shape alphabet, used in every docstring:
    B images, H W pixels, N patches, T tokens (prefix tokens, then patches), m prompts,
    d width, h heads, e width of a head, L depth, C classes, G golden images.

- `api`: the functions below, `vptkit.tune` to `vptkit.profile`.
- `arrow_files`: images in columns: Parquet, and what Hugging Face saves.
- `backbones`: what is known of timm's backbones without timm; whose weights a file holds.
- `checkpoints`: weights as others publish them, in timm's names.
- `cli`: the command line.
- `cluster`: Ray, started or joined, and quiet.
- `datasets`: what lists labelled images: tables, COCO, archives.
- `decoding`: what stands between an image's bytes and its 8-bit pixels.
- `demo`: `vptkit demo`.
- `formats`: what is written to disk: adapters, bundles, weights.
- `images`: image files, labelled sets of them, pixels.
- `pages`: HTML pages that stand alone: templates, sections, the file.
- `paths`: what lies at a path, and what was meant where it is something else.
- `report`: one HTML page about bundles, also a function.
- `scores`: how good answers are, and how sure that is.
- `atomic_files`: files that appear whole or not at all.
- `part_files`: where those are made, and what killed runs left of them.
- `errors`: what can go wrong, with exit codes.
- `private_files`: locks, keys and folders that are this user's alone.
- `python_child`: how a Python process of ours is started.
- `regular_files`: files that a stranger may have made, opened and read with bounds.
- `schema`: what a stranger's document may hold, checked whole.
- `plot_text`: somebody else's text in pictures.
- `shown_text`: somebody else's text, shown to people and not obeyed.
- `strict_json`: JSON that a stranger may have written.
- `progress`: bars and lines on standard error.
- `text_table`: results as plain text.
- `tune`, `export`, `runtime`, `devices`: the four rooms beside this folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.api.lazy_names import lazy_names

if TYPE_CHECKING:
    from vptkit.api.callable_rooms import ExportRoom, TuneRoom
    from vptkit.api.compiling import export_bank
    from vptkit.api.compiling import export_web as export_web  # its examples need a network
    from vptkit.api.judging import check, evaluate, profile
    from vptkit.api.serving import serve as serve  # no example of it can end
    from vptkit.api.streaming import run_streams
    from vptkit.errors import VptkitError
    from vptkit.report import ReportRoom
    from vptkit.report.report_settings import ReportSettings
    from vptkit.runtime.evaluation.evaluation_result import Evaluation
    from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation
    from vptkit.runtime.evaluation.parity import Parity
    from vptkit.runtime.profile.settings import ProfileSettings
    from vptkit.runtime.session.factory import open_session
    from vptkit.runtime.session.session_protocol import Prediction, Session
    from vptkit.tune.config import TuneConfig
    from vptkit.tune.run.run_result import TuneResult

    export: ExportRoom
    report: ReportRoom
    tune: TuneRoom

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "MultilabelEvaluation",
    "Parity",
    "Prediction",
    "ProfileSettings",
    "ReportSettings",
    "Session",
    "TuneConfig",
    "TuneResult",
    "VptkitError",
    "__version__",
    "check",
    "evaluate",
    "export",
    "export_bank",
    "open_session",
    "profile",
    "report",
    "run_streams",
    "tune",
]

# Nothing of this is imported before it is asked for.
_PLACES = {
    "Evaluation": "vptkit.runtime.evaluation.evaluation_result",
    "MultilabelEvaluation": "vptkit.runtime.evaluation.multilabel_result",
    "Parity": "vptkit.runtime.evaluation.parity",
    "Prediction": "vptkit.runtime.session.session_protocol",
    "ProfileSettings": "vptkit.runtime.profile.settings",
    "ReportSettings": "vptkit.report.report_settings",
    "Session": "vptkit.runtime.session.session_protocol",
    "TuneConfig": "vptkit.tune.config",
    "TuneResult": "vptkit.tune.run.run_result",
    "VptkitError": "vptkit.errors",
    "check": "vptkit.api.judging",
    "devices": "vptkit.devices",
    "errors": "vptkit.errors",
    "evaluate": "vptkit.api.judging",
    "export": "vptkit.export",
    "export_bank": "vptkit.api.compiling",
    "export_web": "vptkit.api.compiling",
    "open_session": "vptkit.runtime.session.factory",
    "profile": "vptkit.api.judging",
    "report": "vptkit.report",
    "run_streams": "vptkit.api.streaming",
    "runtime": "vptkit.runtime",
    "serve": "vptkit.api.serving",
    "tune": "vptkit.tune",
}
if not TYPE_CHECKING:  # else every name would be one to type checkers
    __getattr__, __dir__ = lazy_names(__name__, _PLACES)
