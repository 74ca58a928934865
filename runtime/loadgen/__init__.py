"""`vptkit profile --loadgen`: MLPerf's LoadGen asks, a session answers.

- `loadgen_logs`: what LoadGen wrote: its verdict, its figures, its answers.
- `loadgen_settings`: scenario and bounds, MLPerf's own among them.
- `query_answers`: the system under test: queries in, answers out.
- `run_loadgen`: a run, from settings to a document.
- `sample_library`: the images that are asked for.
"""
