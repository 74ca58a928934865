"""Bundles behind HTTP: routes, who may ask, and the process. What answers is `vptkit.runtime.serving`.

- `answer_routes`: `/v2/models/{model}/infer` and `/predict`.
- `application`: all routes.
- `authentication`: who may ask, and who may change adapters.
- `bank_routes`: `/adapters/{name}`.
- `endpoint`: what every request goes through.
- `page_routes`: the page of `--ui`, and the state that it shows.
- `recent_requests`: the last minute.
- `request_limits`: bodies: how large, how slow, how many.
- `request_log`: one JSON line a request.
- `server_process`: from the settings to the last answer.
- `server_state`: what the routes share.
- `upload_form`: files of a form.
"""
