"""How often the detectors of accord/pitfalls are right: healthy runs, and runs with a planted cause."""
