"""A finished graph, read: nothing here changes one.

- `attention_fusion`: its attentions, and what keeps one from being fused.
- `dataflow`: who makes and reads each value.
- `macs`: multiply-accumulates, from the geometry.
- `memory_estimate`: an engine's memory, from life times of values.
- `qdq_placement`: lint of QuantizeLinear and DequantizeLinear.
- `tensorrt_rules`: what each TensorRT takes, by rules.
- `block_steps`: one block before and after the folds, step by step.
- `fold_savings`: what each fold took out of a graph.
"""
