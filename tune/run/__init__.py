"""One run, from data to adapter file: load, train, choose, write.

- `tune_run`: `tune`, the four steps in their order.
- `load_run`: what is asked, and what data and backbone turn out to be.
- `finished_run`: a run that is over, taken as it is.
- `full_data_run`: the training on a fuller set, for the FSR proxy.
- `choose_on_val`: the best epoch, λ or α, the head, a temperature; test and ood, asked once.
- `choose_lambda`: λ chosen, and how far the norms moved.
- `write_run`: the adapter and its golden answers.
- `run_result`: what a run gave.
- `few_shot_series`: `--shots 1,2,5,10`.
"""
