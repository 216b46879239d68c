"""`accord evaluate`: a stage from what the command line says, and a table of its results."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import cast
from urllib.parse import urldefrag, urlsplit

from pydantic import JsonValue

from accord.cli.commands import model_folder
from accord.console import table
from accord.errors import RecipeError
from accord.estimate import Estimate, interval, wilson
from accord.recipe import Recipe, Table
from accord.recipe.evaluate import is_given, is_server
from accord.recipe_file import anchor, load, parse
from accord.run import read_json
from accord.stages import alone

Results = dict[str, dict[str, dict[str, float]]]
STAGE = "evaluate"
BOARD = ("winrate/rank", "winrate/expected_win_rate", "winrate/strength")
RANK = BOARD[0]


def evaluate_models(
    models: list[str], responses: list[str], settings: Table, out: Path, *, threads: int | None, rescore: bool
) -> None:
    """`accord evaluate`. `settings` are those of the stage that the command line gives."""
    settings = cast(Table, anchor(settings, Path.cwd()))
    named = {**dict(map(named_model, models)), **dict(map(named_file, responses))}
    if len(named) < len(models) + len(responses):
        raise RecipeError("models", "two have the same name", "name them: NAME=WHAT")
    if rescore:
        recipe = stored(out, named, settings)
    else:
        own = cast(list[str], settings.get("suites") or ["prompts"])
        files = [path for path in named.values() if is_given(path)]
        settings["suites"] = [suite_with(suite, settings, files) for suite in own]
        compute: Table = {"threads": threads} if threads else {}
        stage: Table = {"kind": "evaluate", "models": dict(named), **settings}
        recipe = parse({"name": named_folder(out), "compute": compute, "stage": {STAGE: stage}})
    alone.run(recipe, out, again=rescore)
    print(shown(read_json(out / "results.json")))
    print(f"\n{out / 'results.json'}\n{out / 'answers.jsonl'}")


def stored(out: Path, named: dict[str, str], settings: Table) -> Recipe:
    """The recipe of an evaluation that was made, with other suites, rewards or judge where they are given."""
    path = out / "recipe.toml"
    if not path.exists():
        raise RecipeError("--rescore", f"there is no evaluation in {out}", "evaluate first, without --rescore")
    if named:
        raise RecipeError("--rescore", "asks no models", "leave them out: the answers are in answers.jsonl")
    old = load(path).model_dump(mode="json", exclude_none=True)
    stage = cast(dict[str, Table], old["stage"])[STAGE]
    kept = {key: value for key, value in settings.items() if key in ("suites", "rewards", "judge", "data", "ratings")}
    return parse(cast(Table, {**old, "stage": {STAGE: {**stage, "judge": "", **kept}}}))


def named_model(text: str) -> tuple[str, str]:
    """`NAME=WHAT` or `WHAT` as name and reference; a run stage becomes the model in it."""
    name, what = _split(text)
    if is_server(what):
        address, model = urldefrag(what)
        return name or model.rpartition("/")[2] or urlsplit(address).netloc, what
    if is_given(what):
        return named_file(text)
    path = model_folder(what)
    path = str(Path(path).resolve()) if Path(path).is_dir() and not what.startswith("accord:") else what
    last = what.removeprefix("accord:").rstrip("/").removesuffix("/model").rpartition("/")[2]
    return name or last or "model", path


def named_file(text: str) -> tuple[str, str]:
    """`NAME=FILE` or `FILE` as name and absolute path."""
    name, what = _split(text)
    path = Path(what).expanduser().resolve()
    return name or path.name.partition(".")[0], str(path)


def _split(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([\w.-]+)=(.+)", text)
    return (found[1], found[2]) if found else ("", text)


def suite_with(suite: str, settings: Table, files: list[str]) -> str:
    """A suite with its data; without any, and without --data, that is what the file of ready answers brings."""
    alone = "=" not in suite and not settings.get("data") and suite not in ("demo", "winrate")
    return f"{suite}={files[0]}" if alone and files else suite


def named_folder(out: Path) -> str:
    """A name that a recipe may have, from a folder."""
    return re.sub(r"[^\w.-]", "-", out.resolve().name).strip(".-") or STAGE


# --------------------------------------------------------------------------------------------------------------- table


def shown(results: dict[str, JsonValue]) -> str:
    """Every number with its 95 % interval, and below what each model is above the baseline, paired by prompt.

    Where models have places on a leaderboard, each is a row, the best first, since there may be many; the places follow.
    """
    models = cast(Results, results["models"])
    places = sorted((name for name in models if RANK in models[name]), key=lambda name: models[name][RANK]["value"])
    models = {name: models[name] for name in [*places, *models]}
    metrics = list(dict.fromkeys(metric for found in models.values() for metric in found if metric not in BOARD))
    rows = [[metric, *(_cell(metric, found.get(metric)) for found in models.values())] for metric in metrics]
    whole = [["mean [95 % interval]", *models], *rows]
    if places:
        whole = [list(row) for row in zip(*whole, strict=True)]
    parts = [table(whole[0], whole[1:])]
    if places:
        parts += ["", leaderboard({name: models[name] for name in places}, str(results["baseline"]))]
    if lines := compared(results):
        parts += ["", f"above {results['baseline']}, on the same prompts:", *lines]
    return "\n".join(parts)


def leaderboard(models: Results, baseline: str) -> str:
    """Places of models, the best first: each number with the 95 % interval of its bootstrap."""
    header = ["", "rank", f"beats {baseline}", "strength (log-odds)", "games"]
    rows = [
        [
            name,
            f"{found[RANK]['value']:.0f} [{found[RANK]['low']:.0f}, {found[RANK]['high']:.0f}]",
            _cell(BOARD[1], found[BOARD[1]]),
            _cell(BOARD[2], found[BOARD[2]]),
            f"{found[RANK]['n']:,.0f}",
        ]
        for name, found in models.items()
    ]
    return f"leaderboard by Bradley-Terry, strength 0 is {baseline}:\n{table(header, rows)}"


def compared(results: dict[str, JsonValue]) -> list[str]:
    """A line for each model and suite: the paired difference in what the suite is about, and how many prompts would do."""
    found: list[str] = []
    for model, told in cast(Results, results.get("paired") or {}).items():
        by_label: dict[str, dict[str, dict[str, float]]] = {}
        for key, value in told.items():
            label, _, metric = key.rpartition("/")
            by_label.setdefault(label, {})[metric] = value
        for label, values in by_label.items():
            metric = next((name for name in ("gold", *values) if name in values and name not in PLAIN), None)
            if metric is None:
                continue
            value = values[metric]
            low_high = _range(*interval(estimate_of(value)))
            line = f"  {model}, {label}/{metric}: {value['value']:+.3f} {low_high} (n {value['n']:.0f})"
            needed = value.get("needed")
            more = f"; to see a difference of 3 points {needed:.0f} prompts are needed" if needed else ""
            found.append(line + more)
    return found


PLAIN = ("length", "words", "finished")  # of any answer


def _cell(metric: str, found: dict[str, float] | None) -> str:
    """`0.812 [0.790, 0.834]`; by an interval of its own where it has one."""
    if not found:
        return "-"
    low, high = (found["low"], found["high"]) if "low" in found else bounds(metric, estimate_of(found))
    return f"{found['value']:.3f} {_range(low, high)}"


def bounds(metric: str, estimate: Estimate) -> tuple[float, float]:
    """The 95 % interval: of a perplexity that of its logarithm, of a share that was the same everywhere Wilson's."""
    name = metric.rpartition("/")[2]
    if name == "perplexity" and estimate.value > 0:
        spread = interval(Estimate(math.log(estimate.value), estimate.stderr / estimate.value, estimate.n))
        return math.exp(spread[0]), math.exp(spread[1])
    if estimate.stderr == 0 and estimate.value in (0.0, 1.0) and name not in (*PLAIN[:2], "kl"):
        return wilson(estimate.value * estimate.n, estimate.n)
    return interval(estimate)


def estimate_of(found: dict[str, float]) -> Estimate:
    """An estimate as results.json holds it."""
    return Estimate(found["value"], found["stderr"], int(found["n"]))


def _range(low: float, high: float) -> str:
    return "[?]" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"
