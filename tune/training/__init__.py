"""The loop and what it runs on: epochs, phases, checkpoints, devices.

- `checkpoint`: a training that can be killed, in one file.
- `device`: where and in which precision.
- `distributed`: several processes that train as one.
- `loop`: AdamW, warm-up and cosine, the best epoch on val.
- `optimizer_step`: one step, however the batch is divided.
- `phased_training`: all phases of a run, fresh or resumed.
- `phases`: all at once, or head and norms in turns.
- `train_state`: how far a training has come.
"""
