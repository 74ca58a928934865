"""What real images say of a graph: ranges, overflow, agreement with fp32.

- `accuracy_gate`: the gate: the same classifier still, on real images?.
- `calibration`: histograms of magnitudes, and ranges chosen from them.
- `evidence`: the images and the runner that a judgement needs.
- `fp16_overflow`: largest magnitudes, and the headroom in fp16.
- `merge_gate`: what merging tokens costs, on the same images.
- `precision_simulation`: low types rounded on a CPU that has no kernels for them.
"""
