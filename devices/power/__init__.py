"""Power modes and meters of a board; whatever is changed here is put back, also after a crash.

- `meters`: a Jetson's rails, a GPU, an x86 package: joules over time.
- `nvpmodel`: power modes set with nvpmodel, clocks pinned with jetson_clocks.
- `operating_state`: mode, clocks, heat, throttling: the state a measurement ran in.
- `restore_point`: what a board was before, and how it goes back to that.
- `watchdog`: a second process that restores the board if the first one dies.
"""
