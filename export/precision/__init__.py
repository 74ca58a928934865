"""Passes that make an fp32 graph fp16, bf16, int8 or fp8; the graph owns its types.

- `half_precision`: fp16 and bf16.
- `island_search`: the smallest set of fp32 islands that passes the gate.
- `lowering`: the passes in order, and the gate.
- `opset_upgrade`: opset 17 to 19, where scales need it.
- `pixel_centring`: pixels as (x - 128) / 128.
- `quantize`: int8 and fp8: Q/DQ around what multiplies.
- `smoothquant`: scale migration, exact.
"""
