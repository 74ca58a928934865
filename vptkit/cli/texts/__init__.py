"""What commands say of results, as text for people. Imports no command.

- `inspect_text`: `vptkit inspect`.
- `loadgen_text`: what LoadGen said.
- `merging_text`: what is said of merged tokens.
- `oracle_report`: `check --oracle`: what TensorRT makes of a graph, as a table.
- `parts_text`: `vptkit profile --parts`.
- `profile_table`: `vptkit profile`.
"""
