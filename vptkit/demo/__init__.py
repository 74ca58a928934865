"""`vptkit demo`: the whole line on one machine, offline, and a report to look at.

- `command`: its options.
- `digits`: its images: scikit-learn's handwritten digits.
- `report`: its table and report.html.
- `run_demo`: tune, export, check, profile, in this order.
"""
