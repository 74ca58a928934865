"""Which machine this is and how it stands, read only, without root.

- `clocks`: clocks, temperatures and signs of throttling.
- `jetson`: which Jetson, which JetPack, which power modes.
- `machine`: processor, memory, GPU and board, with what stays unknown.
- `memory`: memory of the machine (or its container) and of this process.
"""
