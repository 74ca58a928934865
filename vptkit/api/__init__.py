"""The Python API: what the commands do, as functions with the commands' defaults.

Rooms do not import each other; here they meet, inside functions only, as in the command line, which
calls these functions too. Users find them as `vptkit.tune`, `vptkit.export`, ….

- `callable_rooms`: `vptkit.tune`, `vptkit.export` and `vptkit.report` are packages, and functions.
- `compiling`: `export`, `export_bank`, `export_web`.
- `judging`: `check`, `evaluate`, `profile`.
- `lazy_names`: names that are imported when they are asked for.
- `serving`: `serve`.
- `streaming`: `run_streams`.
- `tuning`: `tune`.
"""
