"""Answers to videos and cameras: frames of all sources in mixed batches, with their age.

- `adapter_choice`: which adapter a source is asked of.
- `annotated_video`: the frames as .mp4, with labels drawn on them.
- `answer_files`: .jsonl and .csv that grow by whole lines.
- `frame_answer`: a prediction, with where and when the frame came from.
- `frame_batches`: what is there now, prepared one batch ahead.
- `smoothing`: means over time, changes of the label.
- `source_report`: captured, dropped, served, age.
- `stream_run`: the loop.
- `webhook`: answers posted to a URL.
"""
