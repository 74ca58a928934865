"""One run, from data to adapter file, and its pictures.

- `few_shot_series`: `--shots 1,2,5,10`.
- `finished_run`: a run that is over, taken as it is.
- `layer_norm_plots`: shift, λ, ID against OOD.
- `layer_norm_rescale`: λ chosen, and how far the norms moved.
- `learning_curves`: loss and accuracy by epoch.
- `run_result`: what a run gave.
- `tune_run`: `tune`.
"""
