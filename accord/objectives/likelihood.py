"""Likelihood of demonstrations."""

from accord.data.batch import Batch
from accord.model import Outputs
from accord.objectives import Loss, objective


@objective(outputs=["logp"])
def sft(out: Outputs, batch: Batch) -> Loss:
    """Negative log-likelihood of the train tokens, averaged over tokens (not over rows)."""
    return Loss({"nll": (-out.logp.sum(), "token", 1.0)})
