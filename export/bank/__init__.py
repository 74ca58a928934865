"""Many adapters, one graph: rows of tables, looked up for each image of a batch.

- `adapter_rows`: what one adapter puts into the tables.
- `edit_bank`: adapters added, removed, replaced; no onnx needed.
- `export_bank`: `export --layout bank`.
- `linear_rows`: weight deltas as rows of tables.
- `lookup_graph`: the folded network as a graph with lookups.
"""
