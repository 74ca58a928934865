"""Videos and cameras: frames of several sources, captured side by side.

- `capture`: a thread for one source: the newest frame, or all of them; counted; opened again when lost.
- `capture_policy`: which frames are kept, and how long to wait before a source is opened again.
- `frame`: one picture, with where and when it came from.
- `gstreamer_library`: the one place that imports GStreamer.
- `gstreamer_source`: CSI cameras, pipelines, and decoders of a board.
- `image_sequence_source`: numbered images as a video.
- `pyav_source`: files, network streams and V4L2 cameras through FFmpeg.
- `source`: what all sources offer, and the one that a text names.
- `source_address`: what users write, taken apart; names without credentials.
- `source_protocol`: what a source is, and what can be set.
"""
