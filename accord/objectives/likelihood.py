"""Likelihood of demonstrations."""

from accord.data.batch import Batch
from accord.objectives import Loss, objective, token_metrics
from accord.outputs import Outputs


@objective(outputs=["logp", "entropy", "likeliest"])
def sft(out: Outputs, batch: Batch) -> Loss:
    """Negative log-likelihood of the train tokens, averaged over tokens (not over rows)."""
    return Loss({"nll": (-out.logp.sum(), "token", 1.0)}, token_metrics(out, batch))
