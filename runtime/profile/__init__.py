"""`vptkit profile`: bundles and their baselines, side by side in one run.

- `benchmark`: the measurements in order, one row a candidate.
- `image_parts`: from a file to its labels: reading, decoding, resizing, the graph, the answer.
- `image_rates`: all of that at once, in images a second.
- `latency_breakdown`: enqueue, GPU and host time.
- `power_mode_sweep`: the same in every power mode of a Jetson.
- `prerequisites`: the same backends for all, and the engines they run.
- `profile_file`: a profile that was saved, read back.
- `profile_plot`: as a picture.
- `profiled_sessions`: bundles and baselines, opened.
- `run_profile`: `profile_bundles`, from settings.
- `settings`: the settings, as JSON.
- `latency_plots`: latency as a distribution, and over the batch size.
"""
