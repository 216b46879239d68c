"""accord and its peers on the same weights, rows and settings: `python -m benchmarks --help`."""
