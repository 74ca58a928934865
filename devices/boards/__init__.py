"""What each board can do, as data: one TOML a board, each figure with its source.

Bandwidth, memory, peaks, power modes and known troubles are looked up here.

- `board`: a board's figures, its power modes, its roofline.
- `catalog`: all boards, by key, and which one this machine is.
- `datasheet`: how a TOML of sourced figures is read.
- `jetpacks`: what each JetPack brings, and what is known not to work.
- `latency_model`: how long a ViT may take where nobody measured, and how far that is off.
- `published_latencies`: latencies that others published, with their sources.
"""
