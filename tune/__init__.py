"""Training: learn a few numbers on a frozen timm Vision Transformer. Needs torch and timm."""

from vptkit.tune.config import TuneConfig, config_from_mapping
from vptkit.tune.run.run_result import TuneResult
from vptkit.tune.run.tune_run import tune

__all__ = ["TuneConfig", "TuneResult", "config_from_mapping", "tune"]
