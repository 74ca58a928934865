"""Training: learn a few numbers on a frozen timm Vision Transformer. Needs torch and timm.

- `auto`: `--method auto`: try methods, keep the best.
- `burstiness`: `vptkit analyze`.
- `backbone`: the frozen timm model.
- `config`: every setting of a run, with its default.
- `data`: data sets to batches.
- `distill`: how the demo's backbone was made.
- `foreign_tensors`: a stranger's tensors in terms of ours.
- `idle_settings`: which setting belongs to which method.
- `importers`: other people's adapters.
- `lora_targets`: which linears LoRA may change.
- `methods`: what is learned on it.
- `peft_adapters`: what PEFT trained.
- `phases`: a training from the probe to its last phase.
- `probe`: the linear probe, solved.
- `recipe`: rates and decays of each method.
- `run`: one run: `tune`.
- `sweep`: many runs.
- `training`: the loop.
- `training_page`: what a run tried and chose, as a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vptkit.api.callable_rooms import TuneRoom, make_callable
from vptkit.api.lazy_names import lazy_names

if TYPE_CHECKING:
    from vptkit.api.tuning import tune
    from vptkit.tune.config import TuneConfig, config_from_mapping
    from vptkit.tune.run.run_result import TuneResult

__all__ = ["TuneConfig", "TuneResult", "config_from_mapping", "tune"]

_PLACES = {
    "TuneConfig": "vptkit.tune.config",
    "TuneResult": "vptkit.tune.run.run_result",
    "config": "vptkit.tune.config",
    "config_from_mapping": "vptkit.tune.config",
    "tune": "vptkit.api.tuning",
}
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _PLACES)
make_callable(__name__, TuneRoom)
