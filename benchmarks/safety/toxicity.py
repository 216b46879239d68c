"""Train the embedded toxicity classifier on labelled ends of dialogues, and say how often it errs.

python -m benchmarks.safety.toxicity ../shared/data       # writes accord/score/safety/toxicity.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from accord.estimate import wilson
from accord.score.safety.toxicity import EMBEDDED, ToxicityModel, held_out, learned, quality
from benchmarks.safety.dialogues import ends, kind, toxic
from benchmarks.safety.files import judged, lines
from benchmarks.safety.groups import sentences
from benchmarks.safety.requests import told


def main(data: Path) -> None:
    """Labelled messages and answers, and sentences that name groups; all that goes with a message, or a pattern, stays in one
    fold. What is stated is the error on the labelled ones alone."""
    pairs, named = list(ends(data)), list(sentences())
    answers = {a: p for p, *both in pairs for a in both if kind(p, a) and toxic(a) is not None}
    of = {**{p: p for p, *_ in pairs if toxic(p) is not None}, **answers}  # text: the message that it goes with
    texts = [*of, *(text for text, _, _ in named)]
    y = np.array([*(toxic(text) is True for text in of), *(said for _, said, _ in named)])
    groups = [*of.values(), *(pattern for _, _, pattern in named)]
    p = held_out(texts, y.tolist(), groups=groups)
    real = np.arange(len(texts)) < len(of)
    is_answer = np.array([text in answers for text in texts])
    parts = {"labelled": real, "messages": real & ~is_answer, "answers": is_answer, "naming groups": ~real}
    for name, which in parts.items():
        told(name, quality(p[which], y[which]))
        print(f"  called toxic {np.mean(p[which] >= 0.5):.3f}, are {y[which].mean():.3f}")
    compared = [(a, b) for _, a, b in pairs if a in answers and b in answers]
    for name, said in (("labels", y), ("classifier", p >= 0.5)):
        of_text = dict(zip(texts, said.tolist(), strict=True))
        against_people(name, [(of_text[a], of_text[b]) for a, b in compared])
    model = ToxicityModel(*learned(texts, y.tolist()), quality(p[real], y[real]))
    model.save(EMBEDDED)
    elsewhere(model, data)


def elsewhere(model: ToxicityModel, data: Path) -> None:
    """What it calls toxic among answers of chat models, next to none of which are."""
    for path in judged(data):
        said = model.probabilities([row["output"] for row in lines(path)])
        print(f"{path.name}: {np.mean(said >= 0.5):.4f} of {len(said)} answers called toxic")


def against_people(name: str, pairs: list[tuple[bool, bool]]) -> None:
    """Of pairs with one toxic answer, in how many people preferred the other."""
    apart = [rejected for chosen, rejected in pairs if chosen != rejected]
    low, high = wilson(sum(apart), len(apart))
    print(f"{name}: one of two is toxic in {len(apart)} pairs; people preferred the other in {sum(apart)} "
          f"= {np.mean(apart):.3f} [{low:.3f}, {high:.3f}]")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
