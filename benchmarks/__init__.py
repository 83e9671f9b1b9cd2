"""How fast catlog is, each time as a ratio against a peer measured in the same run.

`python -m benchmarks [NAME ...] [--small]`; see `__main__`.
"""
