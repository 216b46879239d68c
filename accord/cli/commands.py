"""What the commands do; imported once a command has been chosen."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from accord import demo, processes
from accord.cli.reward import folders_of
from accord.console import duration, say, table
from accord.data import chat
from accord.data.dropped import Dropped
from accord.data.records import Example, Message, Pair, Ranking, Rating, Record, conversation, named
from accord.data.sources import check, read
from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Engine
from accord.errors import DataError, ModelError, RecipeError
from accord.estimate import mean
from accord.model import context_of, has_head, load_config, load_policy
from accord.recipe import Compute, Decoding, Recipe, RewardTerm, Source
from accord.report import write_report
from accord.report.model_cards import write_cards, write_exported
from accord.run import Run, StageFolder, read_json
from accord.sampler import Ask, Rollout
from accord.sampler.local import LocalSampler
from accord.score.model import open_reward
from accord.stages import export, fingerprints, rehearse
from accord.stages import run as run_stages
from accord.stages.check import inspect, marked


def run_recipe(recipe: Recipe, only: list[str], out: Path | None) -> None:
    """`accord run`."""
    made = run_stages(recipe, out or Path("runs") / recipe.name, only=only)
    if not processes.first():  # of several that a launcher has started
        return
    print(summary(made))
    write_cards(made.path)
    print(f"\nreport: {write_report(made.path)}")


def summary(run: Run) -> str:
    """The stages with their time and headline, then the comparison of every evaluation."""
    rows = [_stage_row(run.stage(name), stage.kind) for name, stage in run.recipe.stage.items()]
    parts = ["", table(["stage", "kind", "time", "result"], rows)]
    for name, stage in run.recipe.stage.items():
        results = read_json(run.stage(name).path / "results.json") if stage.kind == "evaluate" else {}
        if results:
            parts += ["", f"{name} (baseline: {results['baseline']})", _comparison(results)]
    return "\n".join(parts)


def _stage_row(folder: StageFolder, kind: str) -> list[str]:
    record = folder.record
    seconds = cast(float, record.get("seconds", 0.0))
    result = cast(dict[str, object], record.get("result", {}))
    said = [f"{key} {_short(value)}" for key, value in result.items() if _short(value)]
    return [
        folder.name,
        kind,
        duration(seconds) if seconds else "-",
        "  ".join(said[:4]) or str(record.get("status", "-")),
    ]


def _short(value: object) -> str:
    """A number, or an estimate with its error; nothing for the rest."""
    if isinstance(value, dict) and "value" in value:
        found = cast(dict[str, float], value)
        return f"{found['value']:.3f}" + (f" ± {found['stderr']:.3f}" if "stderr" in found else "")
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _comparison(results: dict[str, JsonValue]) -> str:
    models = cast(dict[str, dict[str, dict[str, float]]], results["models"])
    metrics = list(dict.fromkeys(metric for found in models.values() for metric in found))
    rows = [[metric, *(_short(found.get(metric)) or "-" for found in models.values())] for metric in metrics]
    return table(["metric", *models], rows)


# --------------------------------------------------------------------------------------------------------------- check


def check_recipe(recipe: Recipe, out: Path | None) -> None:
    """`accord check`."""
    for seen in inspect(recipe):
        of = seen.contents
        kinds = ", ".join(f"{count} {kind}" for kind, count in of.kinds.items())
        print(f"\n{seen.where}: {kinds}" + (f", {of.dropped.total} left out" if of.dropped.total else ""))
        for reason, dropped in of.dropped.reasons.items():
            print(f"  left out, {reason}: {dropped.count}, as {dropped.example}")
        print("  first row" + (", trained between ⟦ and ⟧" if seen.tokenizer else "") + ":")
        print("".join(f"  | {line}\n" for line in marked(seen).splitlines()), end="")
    say("\nrehearsing every stage on a few rows ...")
    with tempfile.TemporaryDirectory() as folder:
        rehearse(recipe, Path(folder) / "rehearsal")
    print("\nwhat would run:")
    print(table(["stage", "kind", "does"], _plan(recipe, Run(recipe, out or Path("runs") / recipe.name))))


def _plan(recipe: Recipe, run: Run) -> list[list[str]]:
    rows: list[list[str]] = []
    for name, wanted in fingerprints(recipe).items():
        record = run.stage(name).record
        same = record.get("fingerprint") == wanted
        done = "is skipped: done before" if record.get("status") == "done" else "goes on from its saved state"
        begins = "begins again: something it depends on has changed" if record else "begins"
        rows.append([name, recipe.stage[name].kind, done if same else begins])
    return rows


# ---------------------------------------------------------------------------------------------------------------- chat


def model_folder(model: str) -> str:
    """A stage's folder stands for the model in it, `accord:tiny` for the embedded one."""
    if model.startswith("accord:"):
        return str(demo.model(model))
    folder = Path(model)
    if (folder / "run.json").is_file():
        made = sorted(str(path.parent) for path in folder.glob("*/model") if path.is_dir())
        raise ModelError(model, "is a whole run", f"name one of its stages: {', '.join(made) or '(none is done)'}")
    return str(folder / "model") if (folder / "model").is_dir() else model


def chat_with(
    model: str, prompt: str | None, system: str | None, *, temperature: float, max_new_tokens: int, seed: int,
    decoding: Decoding,
) -> None:  # fmt: skip
    """`accord chat`."""
    path = model_folder(model)
    config = load_config(path, "chat")
    if has_head(config):
        raise ModelError("chat", f"{path} is a reward model and cannot answer", "score with it: accord score")
    max_new_tokens = min(max_new_tokens, context_of(config) // 2)  # the prompt needs room too
    tokenizer = load_tokenizer(path, "chat")
    policy = Engine(Compute()).place(load_policy(path, tokenizer, "chat"))
    sampler = LocalSampler(policy, tokenizer, stop_ids(tokenizer, path))
    room = context_of(config) - max_new_tokens
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    for number, said in enumerate([prompt] if prompt is not None else _lines()):
        history.append({"role": "user", "content": said})
        tokens = chat.prompts(tokenizer, [history])[0]
        if len(tokens) > room:
            said = f"the conversation has {len(tokens)} tokens, and there is room for {room}"
            raise DataError("chat", said, "begin a new one, or ask for shorter answers with --max-new-tokens")
        ask = Ask(prompt=list(history), tokens=tokens, number=number)
        (answer,) = sampler.generate(
            [ask], max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, decoding=decoding
        )
        history.append({"role": "assistant", "content": answer.text})
        print(answer.text + ("" if answer.finish == "stop" else " …"), flush=True)


def _lines():
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip():
            yield line


# --------------------------------------------------------------------------------------------------------------- score


def score_records(model: str, data: str, limit: int | None, skip: bool) -> None:
    """`accord score`."""
    source = Source(source=data, limit=limit, on_error="skip" if skip else "stop")
    check(source, "data")
    reward = open_reward(folders_of(model), RewardTerm(), Engine(Compute()), micro_tokens=8192, where="score")
    dropped = Dropped()
    right: list[float] = []
    for record in read(source, dropped, "data"):
        answers = _answers(record)
        values = [score.value for score in reward([_rollout(conversation(record), text) for text in answers.values()])]
        print(json.dumps({"prompt": conversation(record), **answers, "rewards": dict(zip(answers, values, strict=True))},
                         ensure_ascii=False))  # fmt: skip
        if isinstance(record, Pair):
            right.append(0.5 if values[0] == values[1] else float(values[0] > values[1]))
    found = mean(right)
    if found:
        say(f"accuracy {found} on {found.n} pairs")
    for reason, left in dropped.reasons.items():
        say(f"left out, {reason}: {left.count}, as {left.example}")


def _answers(record: Record) -> dict[str, str]:
    """The answers of a record that can be scored, by the name of their field."""
    if isinstance(record, Pair):
        return {"chosen": record.chosen, "rejected": record.rejected}
    if isinstance(record, Ranking):
        return {f"response {i}": text for i, text in enumerate(record.responses, 1)}
    if isinstance(record, Rating):
        return {"response": record.response}
    if isinstance(record, Example):
        return {"response": record.messages[-1]["content"]}
    raise DataError(
        "data", f"{named(record)} has no answer to score", "give pairs, rankings, ratings or demonstrations"
    )


def _rollout(prompt: list[Message], text: str) -> Rollout:
    return Rollout(prompt=prompt, text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop")


# -------------------------------------------------------------------------------------------------------------- export


def export_model(model: str, out: Path, *, merge: bool, int8: bool, data: str | None) -> None:
    """`accord export`."""
    if merge == int8:
        raise RecipeError(
            "export", "say what to write", "--merge for a whole model, or --int8 for one of 8-bit integers"
        )
    if data and not int8:
        raise RecipeError("--data", "belongs to --int8", "leave it out")
    if out.exists():
        raise RecipeError("--out", f"{out} is there already", "name a folder that is not, or remove it")
    source = Source(source=data) if data else None
    if source:
        check(source, "--data")
    path, values = model_folder(model), list[float]()
    if merge:
        export.merged(path, out)
    else:
        values = export.quantised(path, out, source, Engine(Compute()))
        if values:
            print("perplexity {:.4f} before, {:.4f} after".format(*values))
    write_exported(Path(path), out, int8=int8, perplexity=values)
    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    print(f"{out}: {size:.1f} MiB")


# -------------------------------------------------------------------------------------------------------------- doctor


def examine() -> None:
    """`accord doctor`."""
    import torch

    from accord.run import hardware, versions

    engine = Engine(Compute())
    facts: dict[str, object] = {**versions(), **hardware()}
    facts |= {"device": engine.device, "precision": engine.precision, "threads": engine.threads}
    if torch.cuda.is_available():
        facts["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    facts["disk free"] = f"{free:.1f} GiB here"
    print(table(["what", "found"], [[key, str(value)] for key, value in facts.items()]))
    if free < 5:
        say("little disk is left here: models and saved states need room; --out writes elsewhere")
