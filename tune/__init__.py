"""Training: learn a few numbers on a frozen timm Vision Transformer. Needs torch and timm."""

from .config import TuneConfig, config_from_mapping
from .result import TuneResult
from .run import tune

__all__ = ["TuneConfig", "TuneResult", "config_from_mapping", "tune"]
