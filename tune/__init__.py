"""Training: learn a few numbers on a frozen timm Vision Transformer. Needs torch and timm.

- `auto`: `--method auto`: try methods, keep the best.
- `burstiness`: `vptkit analyze`.
- `backbone`: the frozen timm model.
- `config`: every setting of a run, with its default.
- `data`: data sets to batches.
- `distill`: how the demo's backbone was made.
- `idle_settings`: which setting belongs to which method.
- `importers`: other people's adapters.
- `methods`: what is learned on it.
- `phases`: a training from the probe to its last phase.
- `probe`: the linear probe, solved.
- `recipe`: rates and decays of each method.
- `run`: one run: `tune`.
- `sweep`: many runs.
- `training`: the loop.
"""

from vptkit.tune.auto.tune_method import tune
from vptkit.tune.config import TuneConfig, config_from_mapping
from vptkit.tune.run.run_result import TuneResult

__all__ = ["TuneConfig", "TuneResult", "config_from_mapping", "tune"]
