"""The loop and what it runs on: epochs, checkpoints, devices.

- `checkpoint`: a training that can be killed, in one file.
- `device`: where and in which precision.
- `distributed`: several processes that train as one.
- `event_log`: what TensorBoard shows.
- `frozen_features`: of whole splits, computed once while nothing behind them changes.
- `loop`: AdamW, warm-up and cosine, the epoch chosen on val.
- `optimizer_step`: one step, however the batch is divided.
- `run_files`: a run's files, and the refusal to lose what is there.
- `train_state`: how far a training has come.
"""
