"""One quantity a module, measured.

- `energy`: joules an image, above the idle machine.
- `memory_footprint`: memory of a bundle, in a fresh process.
- `percentiles`: durations without end in bounded memory: histogram and kept rounds.
- `telemetry`: the machine's state and a power meter, during a profile.
- `throughput`: images a second of several sessions at once.
- `timing`: latency: warmed up, interleaved, with an interval.
"""
