"""The draw: noise is a function of (seed, number, position), distributions are those of transformers' logits processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from accord.recipe import Decoding
from accord.sampler.draw import draw, most_likely, penalised, truncated, uniform


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draw_follows_the_softmax(temperature: float) -> None:
    n, rows = 20_000, torch.tensor([[0.0, 1.0, -1.0, 2.5, 0.3, -0.7, 1.9, -float("inf")], [3.0] + [0.0] * 7])
    for row in rows:
        noise = uniform(11, torch.arange(n), 2)
        token, logp = draw(row.expand(n, -1), temperature, noise)
        scaled = row.double().numpy() / temperature
        p = np.exp(scaled) / np.exp(scaled).sum()
        counts = np.bincount(token.numpy(), minlength=8)
        possible = p > 0
        assert counts[~possible].sum() == 0
        # 99.9 % quantiles of the chi-square distribution with 6 and 7 degrees of freedom.
        assert chi_square(counts[possible], n * p[possible]) < {7: 22.5, 8: 24.3}[int(possible.sum())]
        np.testing.assert_allclose(logp.numpy(), np.log(p[token.numpy()]), atol=1e-5)


def test_draw_stays_inside_at_the_ends_of_the_noise() -> None:
    logits = torch.tensor([[-float("inf"), 0.0, -float("inf"), 1.0, -float("inf")]]).expand(2, -1)
    token, _ = draw(logits, 1.0, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert token.tolist() == [1, 3]


def test_draw_reaches_rare_tokens() -> None:
    # One token and a tail of 5,000 with 1e-9 each: float32 sums would take 60 of the tail's tokens for one.
    logits = torch.zeros(1, 5_001)
    logits[0, 0] = np.log(1e9 - 5_000)
    n = 500
    noise = 1 - 5e-6 * (torch.arange(n, dtype=torch.float64) + 0.5) / n  # the part of [0, 1) that the tail takes
    token, _ = draw(logits.expand(n, -1), 1.0, noise)
    assert token.unique().numel() == n
    assert token.double().mean() == pytest.approx(2_500, rel=0.02)
    assert (draw(logits, 1.0, noise[-1:] - 2e-8)[0] == 0).all()


def splitmix64(state: int, count: int) -> list[int]:
    """The published generator (https://prng.di.unimi.it/splitmix64.c) in plain integers."""
    found: list[int] = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_uniform_is_splitmix64() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for seed, position in ((0, 0), (1, 3), (12345, 700)):
        start = seed * 6364136223846793005 % 2**62 + (position + 1) * 1442695040888963407 % 2**62
        expected = [number >> 11 for number in splitmix64(start, 1000)]
        found = uniform(seed, torch.arange(1, 1001), position) * 2.0**53
        assert [int(number) for number in found.tolist()] == expected


def test_uniform_is_flat_and_uncorrelated() -> None:
    n = 40_000
    numbers = torch.arange(n)
    base = uniform(0, numbers, 0).numpy()
    assert base.min() >= 0
    assert base.max() < 1
    others = {
        "seed": uniform(1, numbers, 0).numpy(),
        "far seed": uniform(1_000_003, numbers, 0).numpy(),
        "position": uniform(0, numbers, 1).numpy(),
        "far position": uniform(0, numbers, 511).numpy(),
        "number": uniform(0, numbers + 1, 0).numpy(),
        "batch": uniform(0, numbers + 64, 0).numpy(),
        "seed and position": uniform(1, numbers, 1).numpy(),
    }
    for name, values in {"base": base, **others}.items():
        assert values.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / n) ** 0.5), name
        assert values.var() == pytest.approx(1 / 12, rel=0.02), name
        counts = np.histogram(values, bins=64, range=(0, 1))[0]
        assert chi_square(counts, np.full(64, n / 64)) < 103.4, name  # 99.9 % quantile at 63 degrees of freedom
        assert len(np.unique(values)) == n, name
    for name, values in others.items():
        assert abs(np.corrcoef(base, values)[0, 1]) < 4 / n**0.5, name
        # Not only linearly: the pairs fill the unit square evenly.
        square = np.histogram2d(base, values, bins=8, range=((0, 1), (0, 1)))[0]
        assert chi_square(square.ravel(), np.full(64, n / 64)) < 103.4, name


def test_uniform_along_an_answer() -> None:
    # Positions of one answer, for many answers: what a sampled text is really made of.
    grid = torch.stack([uniform(0, torch.arange(200), position) for position in range(200)], dim=1).numpy()  # [n, t]
    assert grid.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / grid.size) ** 0.5)
    np.testing.assert_allclose(grid.mean(0), 0.5, atol=5 * (1 / 12 / 200) ** 0.5)
    np.testing.assert_allclose(grid.mean(1), 0.5, atol=5 * (1 / 12 / 200) ** 0.5)
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(grid[:, :-lag].ravel(), grid[:, lag:].ravel())[0, 1]) < 4 / grid.size**0.5


# ------------------------------------------------------------------------------------------------------------ truncation


def scores(kind: str) -> Tensor:
    """Rows that are flat (their nucleus is most of the vocabulary), steep and in between."""
    dice = torch.Generator().manual_seed(2)
    spread = {"flat": 0.3, "model": 3.0, "steep": 12.0}[kind]
    return torch.randn(16, 3_001, generator=dice) * spread


def theirs(logits: Tensor, temperature: float, decoding: Decoding, seen: Tensor) -> Tensor:
    """Log-probs after the logits processors of transformers, as `generate` orders them: [B, V]."""
    found = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty)])
    found.append(TemperatureLogitsWarper(temperature))
    if decoding.top_k:
        found.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        found.append(TopPLogitsWarper(decoding.top_p))
    if decoding.min_p:
        found.append(MinPLogitsWarper(decoding.min_p))
    return found(seen, logits).log_softmax(-1)


@pytest.mark.parametrize("kind", ["flat", "model", "steep"])
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(top_k=1), Decoding(top_k=50), Decoding(top_k=9_999), Decoding(top_p=0.3), Decoding(top_p=0.9),
        Decoding(top_p=0.999), Decoding(min_p=0.05), Decoding(min_p=1.0), Decoding(repetition_penalty=1.3),
        Decoding(top_k=40, top_p=0.8, min_p=0.02, repetition_penalty=0.8), Decoding(top_p=0.95, min_p=0.1),
    ],
    ids=lambda decoding: str(decoding.model_dump(exclude_defaults=True)),
)  # fmt: skip
def test_distributions_are_those_of_transformers(kind: str, decoding: Decoding) -> None:
    logits = scores(kind).double()  # in float32 the last token of a nucleus is a matter of rounding
    seen = torch.randint(0, 3_001, (16, 30), generator=torch.Generator().manual_seed(4))
    expected = theirs(logits, 0.7, decoding, seen)
    ours = penalised(logits, seen, decoding.repetition_penalty) / 0.7
    found = truncated(ours, decoding).log_softmax(-1)
    assert torch.equal(found.isinf(), expected.isinf())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    for k in range(20):
        token, logp = draw(ours * 0.7, 0.7, uniform(k, torch.arange(16), 0), decoding)
        torch.testing.assert_close(logp, expected.gather(1, token[:, None])[:, 0], atol=1e-4, rtol=0)


def test_the_most_likely_is_the_first_of_the_largest() -> None:
    logits = torch.randint(0, 5, (50, 201), generator=torch.Generator().manual_seed(0)).float()
    assert most_likely(logits).tolist() == logits.numpy().argmax(1).tolist()
    logits[:, 64:] = -torch.inf
    assert most_likely(logits).tolist() == logits.numpy().argmax(1).tolist()
