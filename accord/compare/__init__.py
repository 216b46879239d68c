"""Models side by side: pair by pair against a baseline, in AlpacaEval's form, and many of them on one scale."""
