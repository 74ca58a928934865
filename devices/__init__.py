"""Which machine this is, what each board can do, and what a board tells of itself.

Standard library only: a board runs this as it is.

- `boards`: what each board can do, as data: one TOML a board.
- `drivers`: raw readers: kernel files, the CUDA driver, NVML.
- `power`: power modes, meters, and putting a board back as it was.
- `probes`: which machine this is, its memory and clocks; read only.
"""
