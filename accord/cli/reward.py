"""`accord score --report`: how good a reward model is on comparisons that it has not learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from accord.console import Progress, say, table
from accord.data.dropped import Dropped
from accord.engine import Engine
from accord.errors import DataError, RecipeError
from accord.estimate import Estimate
from accord.model import context_of
from accord.recipe import Compute, RewardTerm, Source
from accord.run import StageFolder, write_folder, write_json, write_text
from accord.sampler import Rollout
from accord.score import part_name
from accord.score.model import RewardModel, open_reward, rows_of
from accord.stages import reward_bench
from accord.stages.reward_bench import Choice, Scored
from accord.stages.reward_quality import to_json

AT_ONCE = 64  # choices that are scored at a time
MICRO_TOKENS = 8192


def folders_of(model: str) -> list[str]:
    """The folders of a reward model: all members of a stage, or the one that is named."""
    folder = StageFolder(Path(model))
    return [str(path) for path in folder.members()] if folder.model.is_dir() else [model]


def report_reward(model: str, data: str, limit: int | None, skip: bool, out: Path | None) -> None:
    """Measure a reward model and print what was found; with `out` leave results.json and all that stands behind it."""
    if out and out.exists():
        raise RecipeError("--out", f"{out} is there already", "name a folder that is not, or remove it")
    source = Source(source=data, limit=limit, on_error="skip" if skip else "stop")
    reward = open_reward(folders_of(model), RewardTerm(), Engine(Compute()), micro_tokens=MICRO_TOKENS, where="score")
    dropped = Dropped()
    choices = list(fitting(reward, reward_bench.read_choices(source, dropped, "data"), dropped))
    if not choices:
        raise DataError("data", f"there is nothing to compare in {data}", "give pairs, rankings, or rows of best of n")
    line = Progress("score", len(choices))
    scored: list[Scored] = []
    for one in reward_bench.score_choices(iter(choices), lambda chunk: rewards(reward, chunk), at_once=AT_ONCE):
        scored.append(one)
        if len(scored) % AT_ONCE == 0 or len(scored) == len(choices):
            line.step(len(scored), {})
    found, calibration = reward_bench.bench(scored), reward_bench.calibrated(scored)
    print(shown(found, calibration))
    for reason, left in dropped.reasons.items():
        say(f"left out, {reason}: {left.count}, as {left.example}")
    if out:
        leave(out, part_name(model) or model, scored, found, calibration, dropped)
        print(f"\n{out}: results.json, answers.jsonl, scores.jsonl; accord report {out} draws them")


def rewards(reward: RewardModel, choices: Sequence[Choice]) -> tuple[list[float], list[list[float]]]:
    """The rewards of all answers of some choices, combined and raw by member."""
    raw = reward.each([_rollout(choice, text) for choice in choices for text in choice.texts])
    return reward.combined(raw).tolist(), raw.tolist()


def fitting(reward: RewardModel, choices: Iterator[Choice], dropped: Dropped) -> Iterator[Choice]:
    """Choices whose answers all fit into the model's context."""
    room = context_of(reward.members[0].config)
    for choice in choices:
        rows = rows_of([_rollout(choice, text) for text in choice.texts], reward.tokenizer, as_sampled=False)
        if max(map(len, rows)) <= room:
            yield choice
        else:
            dropped.add("too_long", f"{choice.name or choice.prompt[-1]['content'][:80]}: more than {room} tokens")


def _rollout(choice: Choice, text: str) -> Rollout:
    return Rollout(prompt=choice.prompt, text=text, prompt_tokens=[], tokens=[], logp=[], finish="stop")


def shown(found: dict[str, Estimate], calibration: dict[str, object]) -> str:
    """The numbers as a table, those of categories last."""
    rows = [[name, f"{value.value:.3f}", f"± {value.stderr:.3f}", f"{value.n:,}"] for name, value in found.items()]
    rows.sort(key=lambda row: "/" in row[0])
    ece = calibration.get("ece")
    rows += [["ece", f"{ece['value']:.3f}", "", f"{ece['n']:,}"]] if isinstance(ece, dict) else []
    return table(["reward model", "value", "error", "n"], rows)


def leave(
    out: Path, name: str, scored: Sequence[Scored], found: dict[str, Estimate], calibration: dict[str, object], dropped: Dropped
) -> None:  # fmt: skip
    """Write the folder that `accord report` reads: the numbers, and every answer with its rewards."""
    members = range(len(scored[0].members))
    whole = to_json(found["accuracy"]) if "accuracy" in found else None

    def fill(draft: Path) -> None:
        write_json(draft / "results.json", reward_bench.results(found, calibration, name))
        write_text(draft / "answers.jsonl", lines(reward_bench.answer_rows(scored, name)))
        for k in members:
            own = [Scored(one.choice, one.members[k]) for one in scored]
            file = "scores.jsonl" if k == 0 else f"scores-member-{k}.jsonl"
            write_text(draft / file, lines(reward_bench.score_rows(own)))
        data = {"eval": {"read": len(scored) + dropped.total, "kept": len(scored), "dropped": dropped.to_json()}}
        result = {**({"accuracy": whole} if whole else {}), **calibration}
        write_json(draft / "stage.json", {"kind": "reward", "status": "done", "data": data, "result": result})

    write_folder(out, fill)


def lines(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as the text of a .jsonl file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
