"""Benchmarks: ratios of catlog against a peer that is measured in the same run.

`python -m benchmarks [NAME ...] [--small]`; see `__main__`.
"""
