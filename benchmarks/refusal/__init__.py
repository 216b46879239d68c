"""The development of the refusal classifier: data, fit, and its one measurement on XSTest."""
