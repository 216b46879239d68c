"""Fits of gold over the root of the KL, against curves made from known a and b."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from report_fixture import save

from accord.report import write_report
from accord.report.overoptimisation import Fit, curve, fit_curve, fit_gold, gains
from accord.report.results import Point, Series, read_series
from accord.report.values import Measure

D = np.array([0.3, 0.8, 1.4, 2.1, 3.0, 4.2])


def best_of_n(d: np.ndarray, a: float, b: float) -> np.ndarray:
    return d * (a - b * d)


def reinforced(d: np.ndarray, a: float, b: float) -> np.ndarray:
    return d * (a - b * np.log(d))


def series(kind: str, gains: np.ndarray, *, start: bool = True, stderr: float | None = 0.01) -> Series:
    points = [
        Point(i, float(d * d), None, Measure(0.5 + g, stderr)) for i, (d, g) in enumerate(zip(D, gains, strict=True))
    ]
    first = [Point(0, 0.0, None, Measure(0.5, stderr))] if start else []
    return Series("made", kind, (*first, *points))


@pytest.mark.parametrize("weights", [None, [0.01, 0.02, 0.01, 0.03, 0.02, 0.01]])
@pytest.mark.parametrize(
    ("kind", "make", "a", "b", "peak"),
    [
        ("best_of_n", best_of_n, 0.5, 0.1, 2.5),
        ("rl", reinforced, 0.6, 0.4, math.exp(0.5)),
        ("rl", reinforced, 0.2, 0.5, math.exp(-0.6)),
    ],
)
def test_known_curves_are_found_again(kind: str, make, a: float, b: float, peak: float, weights: list | None) -> None:
    fit = fit_curve(kind, D.tolist(), make(D, a, b).tolist(), weights)
    assert (fit.a, fit.b, fit.peak) == (pytest.approx(a), pytest.approx(b), pytest.approx(peak))
    assert fit.inside
    assert curve(fit, D) == pytest.approx(make(D, a, b))
    near = curve(fit, np.array([peak * 0.99, peak, peak * 1.01]))
    assert near.argmax() == 1
    assert curve(fit, np.array([0.0]))[0] == 0


def test_errors_are_those_of_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    stderr = np.array([0.01, 0.02, 0.04, 0.01, 0.03, 0.02])
    found = [fit_curve("rl", D.tolist(), (reinforced(D, 0.6, 0.4) + rng.normal(0, stderr)).tolist(), stderr.tolist())
             for _ in range(2000)]  # fmt: skip
    assert np.mean([f.a for f in found]) == pytest.approx(0.6, abs=0.002)
    assert np.std([f.a for f in found]) == pytest.approx(found[0].a_stderr, rel=0.06)
    assert np.std([f.b for f in found]) == pytest.approx(found[0].b_stderr, rel=0.06)


def test_a_noisy_point_counts_for_less() -> None:
    bent = best_of_n(D, 0.5, 0.1)
    bent[2] += 1
    stderr = np.full(len(D), 0.01)
    stderr[2] = 10.0
    assert fit_curve("best_of_n", D.tolist(), bent.tolist(), stderr.tolist()).a == pytest.approx(0.5, abs=1e-4)
    assert abs(fit_curve("best_of_n", D.tolist(), bent.tolist()).a - 0.5) > 0.05


def test_peaks_only_where_gold_bends_down() -> None:
    assert Fit("rl", 0.3, -0.1, 0, 0, 4).peak is None
    assert Fit("best_of_n", -0.3, 0.1, 0, 0, 4).peak is None
    assert Fit("rl", 9.0, 0.1, 0, 0, 4).peak is None  # e^89
    far = Fit("best_of_n", 1.0, 0.1, 0, 0, 4.0)
    assert far.peak == pytest.approx(5)
    assert not far.inside


def test_gains_count_from_the_point_without_kl() -> None:
    made = series("best_of_n", best_of_n(D, 0.5, 0.1))
    assert gains(made, "gold")[0] == (0.0, Measure(0.0, 0.01))
    fit = fit_gold(made)
    assert fit
    assert (fit.a, fit.b) == (pytest.approx(0.5), pytest.approx(0.1))
    assert fit_gold(series("best_of_n", best_of_n(D, 0.5, 0.1), start=False)) is None
    assert fit_gold(series("something else", D)) is None
    assert fit_gold(Series("short", "rl", made.points[:3])) is None
    unweighted = fit_gold(series("rl", reinforced(D, 0.6, 0.4), stderr=None))
    assert unweighted
    assert unweighted.b == pytest.approx(0.4)


def test_figures_and_table_of_the_page(tmp_path: Path) -> None:
    made = {
        "bends": ("best_of_n", best_of_n(D, 0.5, 0.1)),
        "bends later": ("best_of_n", best_of_n(D, 1.0, 0.1)),
        "rises": ("rl", reinforced(D, 0.5, -0.1)),
        "falls": ("best_of_n", best_of_n(D, -0.5, 0.1)),
    }
    found: list[dict] = []
    for name, (kind, values) in made.items():
        points = [{"step": 0, "kl": -1e-9, "gold": 0.5, "proxy": 0.0}]
        points += [
            {"step": i, "kl": d * d, "gold": 0.5 + g, "proxy": d}
            for i, (d, g) in enumerate(zip(D, values, strict=True), 1)
        ]
        found.append({"name": name, "kind": kind, "points": points})
    found.append({"name": "no gold", "kind": "rl", "points": [{"kl": d, "proxy": d} for d in D]})
    save(tmp_path / "eval/curves.json", {"series": found})
    assert [point.kl for point in read_series(tmp_path / "eval")[0].points][:2] == [0.0, pytest.approx(0.09)]
    (tmp_path / "recipe.toml").write_text('name = "bends"\n[stage.eval]\nkind = "evaluate"\n')
    page = write_report(tmp_path).read_text(encoding="utf-8").replace("\u00a0", " ")
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["Gold against distance", "Proxy against distance"]
    rows = [re.sub(r"<[^>]+>", " ", row) for row in re.findall(r"<tr><th>.*?</tr>", page)][1:]
    words = [" ".join(row.split()) for row in rows]
    assert words[0].endswith("6.25 nats gain 0.625 at d = 2.5")
    assert words[1].endswith("25 nats extrapolated: gain 2.5 at d = 5")
    assert words[2].endswith("none gold does not bend down")
    assert words[3].endswith("none gold falls from the start")
    assert words[4].endswith("gold was not measured")


def test_best_of_n_has_the_colour_of_its_policy(tmp_path: Path) -> None:
    names = ["one", "best of n, one", "mean", "best of n, mean"]
    points = [{"step": i, "kl": d * d, "gold": d, "proxy": d} for i, d in enumerate((0.0, 1.0))]
    kinds = ["best_of_n" if name.startswith("best") else "rl" for name in names]
    made = [{"name": name, "kind": kind, "points": points} for name, kind in zip(names, kinds, strict=True)]
    save(tmp_path / "eval/curves.json", {"series": made})
    (tmp_path / "recipe.toml").write_text('name = "pairs"\n[stage.eval]\nkind = "evaluate"\n')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    figure = page[page.index("<figcaption>Gold against distance") : page.index("<figcaption>Proxy against distance")]
    assert {f"--series-{at}" for at in range(1, 7) if f"--series-{at}" in figure} == {"--series-1", "--series-2"}
    assert [name for name in names if f"{name}</" in figure] == ["one", "mean"]
