"""Folded numbers become an ONNX graph, every node named after its block.

- `attention_writer`: attention: prefixes, positions, one-query forms.
- `constants_file`: its constants on disk while it is written.
- `folded_graph`: the graph that ships.
- `graph_options`: how it is written: input, batch, last block.
- `merge_writer`: token merging.
- `onnx_builder`: one method an operator.
- `onnx_file`: a model file, with external data above 2 GB.
- `rotation_writer`: rotary positions, of merged tokens too.
- `score_output`: the scores of several labels an image.
- `unfolded_graph`: the graph that others would export.
"""
