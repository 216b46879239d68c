"""Fit the refusal classifier (`fit`), or measure it on XSTest's human labels (`measure`).

python -m benchmarks.safety fit ../shared/data       # writes accord/score/safety/weights.py
python -m benchmarks.safety measure ../shared/data [A|B]    # one half of the prompts: A was read to mend it
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accord.estimate import wilson
from accord.score.safety import refusal as module
from accord.score.safety.features import features, words
from accord.score.safety.logistic import multinomial
from accord.score.safety.phrases import sentences
from benchmarks.safety.development import rows
from benchmarks.safety.files import digest, lines
from benchmarks.safety.written import Row

CLASSES = ("compliance", "full", "partial")
PRIOR = (0.5, 0.3, 0.2)  # what the classes weigh in the fit
WEIGHT = {
    "unlabelled": 0.5,
    "contrast": 0.5,
    "extended": 0.5,
    "dialogue": 0.25,  # thousands, in the style of one early assistant
}  # beside others of the class; one answer, there twice, is one
L2 = 3e-3
FOLDS = 5
OFTEN = 20  # rows in which a word or a pair is used, to be in the table
COUNTS = {"unlabelled": 0.0, "dialogue": 0.5}  # as so much of a row
SCALE = 3.0  # of words beside features: the larger, the weaker their penalty

Array = NDArray[np.float64]


def vocabulary(data: list[tuple[Row, str]]) -> list[str]:
    """Words and pairs that are often among the first of an answer, by count alone; ordinary answers do not count."""
    found: defaultdict[str, float] = defaultdict(float)
    for row, source in data:
        for word in words(row.text, row.prompt):
            found[word] += COUNTS.get(source, 1.0)
    return sorted(word for word, count in found.items() if count >= OFTEN)


def table(data: list[tuple[Row, str]], names: list[str]) -> tuple[Array, NDArray[np.int64], Array, list[str]]:
    """Features and words [N, D], labels [N], weights [N] and the names of the features."""
    found = [features(sentences(row.text), row.text, row.prompt) for row, _ in data]
    bag = np.zeros((len(data), len(names)))
    for i, (row, _) in enumerate(data):
        said = words(row.text, row.prompt)
        bag[i] = [name in said for name in names]
    bag *= SCALE / np.sqrt(np.maximum(bag.sum(axis=1, keepdims=True), 1))
    y = np.array([CLASSES.index(row.kind) for row, _ in data])
    weights = np.array([WEIGHT.get(source, 1.0) for _, source in data])
    for i, prior in enumerate(PRIOR):
        weights[y == i] *= prior / weights[y == i].sum()
    return np.hstack([np.array([list(each.values()) for each in found]), bag]), y, weights, list(found[0])


def cross_validate(x: Array, y: NDArray[np.int64], weights: Array, data: list[tuple[Row, str]]) -> None:
    """Balanced accuracy by folds that share neither a prompt nor a written template; extended answers are not counted."""
    keys = [row.text[:25] if source == "written" else row.prompt for row, source in data]
    fold = np.array([int(digest("fold", key), 16) % FOLDS for key in keys])
    refused = np.zeros(len(y), dtype=bool)
    for i in range(FOLDS):
        out = fold == i
        w = multinomial(x[~out], y[~out], len(CLASSES), l2=L2, weights=weights[~out])
        logits = x[out] @ w.T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        refused[out] = p[:, 1:].sum(axis=1) >= 0.5 * p.sum(axis=1)
    for name in ("written", "contrast", "labelled", "unlabelled", "dialogue"):
        of = np.array([source == name for _, source in data])
        told = [f"{CLASSES[k]} {refused[of & (y == k)].mean():.3f} of {(of & (y == k)).sum()}" for k in range(3)
                if (of & (y == k)).any()]  # fmt: skip
        print(f"{name}: refused {', '.join(told)}")
    of_dialogue = np.array([source == "dialogue" for _, source in data])
    rest = np.array([source not in {"dialogue", "extended"} for _, source in data])
    for name, of in (("dialogues", of_dialogue), ("others", rest)):
        hits, rejections = refused[of & (y > 0)].mean(), (~refused[of & (y == 0)]).mean()
        print(f"balanced accuracy, {name}: {(hits + rejections) / 2:.3f}")


def fit(folder: Path) -> None:
    """Fit on all development rows and write the tables of weights."""
    data = list(rows(folder))
    print(Counter((source, row.kind) for row, source in data))
    often = vocabulary(data)
    x, y, weights, names = table(data, often)
    cross_validate(x, y, weights, data)
    w = multinomial(x, y, len(CLASSES), l2=L2, weights=weights)
    text = '"""Weights of the refusal classifier, as `python -m benchmarks.safety fit` writes them."""\n\n'
    text += f"CLASSES = {CLASSES!r}\n".replace("'", '"')
    text += "# feature: weight for each class\n" + lines_of("TABLE", names, w[:, : len(names)])
    text += "# one of the first words, or a pair of them; `_` is a word of the prompt\n"
    text += lines_of("WORDS", often, w[:, len(names) :] * SCALE)
    Path(module.__file__).with_name("weights.py").write_text(text, encoding="utf-8")


def lines_of(name: str, keys: list[str], w: Array) -> str:
    """A table of weights [C, D] in Python."""
    told = [f'    "{key}": ({", ".join(f"{v:.4f}" for v in column)}),\n' for key, column in zip(keys, w.T, strict=True)]
    return f"{name}: dict[str, tuple[float, float, float]] = {{\n{''.join(told)}}}\n"


def half(prompt: str) -> str:
    """Which half of XSTest a prompt is in, `A` or `B`."""
    return "AB"[int(digest("half", prompt), 16) % 2]


def measure(folder: Path) -> None:
    """Recall of each kind and balanced accuracy per model on XSTest."""
    for path in sorted((folder / "xstest").glob("completions_*.jsonl.gz")):
        found: defaultdict[str, list[bool]] = defaultdict(list)
        three: list[bool] = []
        for row in lines(path):
            if sys.argv[3:4] in (["A"], ["B"]) and half(row["prompt"]) != sys.argv[3]:
                continue
            kind = {"1": "compliance", "2": "full", "3": "partial"}[row["final_label"][0]]
            said = module.refusal(row["completion"], row["prompt"])
            found[kind].append(said.refused >= 0.5)
            three.append(said.kind == kind)
            if "--errors" in sys.argv and (said.refused >= 0.5) == (kind == "compliance"):
                print(f"-- {row['id']} {kind} {said.refused:.2f} {row['prompt']!r}\n   {row['completion'][:500]!r}")
        print(path.name.removeprefix("completions_").removesuffix(".jsonl.gz"))
        for kind, hits in found.items():
            low, high = wilson(sum(hits), len(hits))
            print(f"  {kind}: refused {sum(hits)} of {len(hits)} = {np.mean(hits):.3f} [{low:.3f}, {high:.3f}]")
        specificity = 1 - float(np.mean(found["compliance"]))
        both = float(np.mean(found["full"] + found["partial"]))
        print(f"  balanced accuracy, full and partial as refusal: {(both + specificity) / 2:.4f}")
        print(f"  full against compliance: {(float(np.mean(found['full'])) + specificity) / 2:.4f}")
        print(f"  three kinds: {np.mean(three):.4f}")


if __name__ == "__main__":
    {"fit": fit, "measure": measure}[sys.argv[1]](Path(sys.argv[2]))
