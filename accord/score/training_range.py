"""Which answers are unlike those that a reward model has learned from: by the hidden state that it scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

# In a folder of its own: some loaders take every .safetensors beside config.json for weights of the model.
FILE = Path("training_range") / "gaussian.safetensors"
KEPT = 0.99  # of answers that are no different are inside


@dataclass(frozen=True)
class TrainingRange:
    """A Gaussian around the hidden states of training answers, [d] at their last tokens, and how far from it is outside."""

    mean: Tensor  # [d]
    factor: Tensor  # [d, d], Cholesky's of the covariance
    limit: float  # in standard deviations, as distances are

    def distance(self, features: Tensor) -> Tensor:
        """The Mahalanobis distance of N hidden states, [N, d], from the mean: [N]."""
        apart = (features.double() - self.mean).T
        return torch.linalg.solve_triangular(self.factor, apart, upper=False).norm(dim=0)

    def outside(self, features: Tensor) -> Tensor:
        """1 where a hidden state is outside, else 0: [N]."""
        return (self.distance(features) > self.limit).float()

    def save(self, folder: Path) -> None:
        """Write it into a model folder."""
        (folder / FILE).parent.mkdir()
        numbers = {"mean": self.mean, "factor": self.factor, "limit": torch.tensor([self.limit])}
        save_file({name: value.float().contiguous() for name, value in numbers.items()}, folder / FILE)


def fit_range(features: Tensor, others: Tensor) -> TrainingRange:
    """The range of hidden states, [N, d]; its limit is the 99 % quantile of distances of `others`, which are none of them.

    The covariance S is shrunk towards its mean variance, (1 - rho) S + rho tr(S) / d, with the rho of Chen et al. 2010,
    eq. 23 (OAS, https://arxiv.org/abs/0907.4698): there are seldom many more answers than dimensions.
    """
    x = features.double()
    count, size = x.shape
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / count
    trace, squares = covariance.trace(), covariance.square().sum()  # of S, and of S S
    above = (1 - 2 / size) * squares + trace**2
    below = (count + 1 - 2 / size) * (squares - trace**2 / size)
    rho = float((above / below).clamp(max=1)) if below > 0 else 1.0
    shrunk = (1 - rho) * covariance + (rho * trace / size + 1e-12) * torch.eye(size, dtype=x.dtype)
    open_ended = TrainingRange(mean, torch.linalg.cholesky(shrunk), float("inf"))
    return TrainingRange(mean, open_ended.factor, float(open_ended.distance(others).quantile(KEPT)))


def load_range(folder: str) -> TrainingRange | None:
    """The range in a model folder; None where it holds none."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    found = load_file(path)
    return TrainingRange(found["mean"].double(), found["factor"].double(), float(found["limit"]))
