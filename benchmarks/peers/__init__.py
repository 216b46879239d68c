"""One worker for each side and method: `python -m benchmarks.peers.NAME JOB` prints one JSON line of results."""
