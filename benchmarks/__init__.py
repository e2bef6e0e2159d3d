"""Measures the pipeline beside what people would use instead: `.venv/bin/python -m benchmarks --help`, or `make bench`.

No part of the product: nothing outside of this folder imports it. docs/performance.md says how it measures.
"""
