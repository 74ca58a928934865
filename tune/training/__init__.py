"""The loop and what it runs on: epochs, phases, checkpoints, devices.

- `checkpoint`: a training that can be killed, in one file.
- `device`: where and in which precision.
- `distributed`: several processes that train as one.
- `head_refit`: the head once more, after λ was chosen.
- `loop`: AdamW, warm-up and cosine, the best epoch on val.
- `optimizer_step`: one step, however the batch is divided.
- `phase_trainer`: one phase: its optimiser, batches and epochs.
- `phased_training`: all phases of a run, fresh or resumed.
- `phases`: all at once, or head and norms in turns.
- `run_files`: a run's files, and the refusal to lose what is there.
- `train_state`: how far a training has come.
- `whiten_from_images`: W of each block, from training images.
"""
