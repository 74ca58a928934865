"""What commands share: options, and how results are printed. Imports no command.

- `inspect_text`: `vptkit inspect` for people.
- `judging_images`: which images calibrate, which judge; never too kindly without saying so.
- `kept_epochs`: what an interrupted training left behind.
- `loadgen_text`: what LoadGen said.
- `option_effect`: options without effect are refused.
- `options`: options and arguments under one name and one help text.
- `oracle_report`: `check --oracle`: what TensorRT makes of a graph, as a table.
- `output`: documents and texts on standard output; missing extras named.
- `precision_evidence`: images, a runner and parity for precisions below fp32; what lossy steps cost.
- `profile_table`: `vptkit profile` as text.
- `rejection_images`: train and val, by which a bundle learns what is like them.
- `verdict`: how a command ends: what it wrote, what to type next.
"""
