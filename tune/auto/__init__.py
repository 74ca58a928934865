"""`--method auto`: try methods within a budget, keep the best, or the probe if none beats it.

- `auto_run`: the whole: probe, candidates, decision, one ordinary adapter.
- `budget`: how much may be spent, in time or epochs.
- `candidates`: which methods are tried.
- `halving`: who goes on after how many epochs.
- `tune_method`: `tune`, of one method or of auto.
"""
