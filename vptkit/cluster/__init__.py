"""Ray, as `vptkit sweep` and `vptkit run --ray-address` use it; imported in functions only.

- `cluster_address`: HOST:PORT, auto or local, and whether anybody answers there.
- `connection`: Ray is started or joined, and ended in good order.
- `quiet_ray`: its own words go nowhere.
"""
