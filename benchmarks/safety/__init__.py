"""The development of the refusal and the toxicity classifier: data, fits, and what they measure elsewhere."""
