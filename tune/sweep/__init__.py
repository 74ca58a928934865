"""Many runs: a grid or a pruned search, ranked by val.

- `ray_runner`: trials on Ray Tune.
- `run_sweep`: `sweep`: run, rank, make the best one.
- `search_space`: a TOML becomes a list of trials.
- `sweep_plot`: val against each swept setting.
- `trial`: one run, without a look at test.
- `trial_store`: what became of each trial, on disk.
"""
