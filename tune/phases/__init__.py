"""A training from its start to its last phase: the probe, then everything at once or in turns.

- `choose_line`: how far along the line from start to end, chosen on val.
- `cross_validation`: strength and epoch, where there is no val.
- `head_refit`: the head once more, after λ or α was chosen.
- `judge_training`: whether anything was learned, or the training ran away.
- `new_model`: what a training is made of, and the model as it begins with it.
- `part_training`: a training while a part of the images is held out.
- `phase_plan`: all at once, or head and norms in turns.
- `phase_trainer`: one phase: its optimiser, batches and epochs.
- `phased_training`: all phases of a run, fresh or resumed.
- `probe_start`: the head begins as the linear probe.
- `soup`: the average of the best epochs.
- `whiten_from_images`: W of each block, from training images.
"""
