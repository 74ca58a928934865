"""Raw readers, one a source; what cannot be read is None or an error that says why.

- `cuda`: the CUDA driver through ctypes: GPUs, memory, streams, events, graphs.
- `nvml`: clocks, power, energy and throttling of an NVIDIA GPU.
- `sysfs`: short files of /proc, /sys and /etc.
"""
