"""Instruction compliance that a program checks: IFEval (Zhou et al. 2023, https://arxiv.org/abs/2311.07911)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from accord.data.records import Prompt, Record
from accord.errors import DataError
from accord.estimate import Estimate, ratio
from accord.sampler import Rollout
from accord.score import Score, Scorer
from accord.score.instructions import Kwargs, asked, loose, strict
from accord.suites import Answered, Suite

Verdicts = Callable[[str, Sequence[str], Sequence[Kwargs]], list[bool]]


def ifeval(records: Sequence[Record], reward: Scorer | None) -> Suite:
    """Prompts with `instruction_id_list` and `kwargs` in their meta, by the stage's `rewards` too.

    `prompt_*` is the share of answers that follow all of their instructions, `instruction_*` the share of instructions that are
    followed (of one family under `strict/<family>`); `loose` lets a first or last line and asterisks pass.
    """
    scorers = {"prompt_strict": _prompts("strict", strict), "prompt_loose": _prompts("loose", loose)}
    return Suite("ifeval", records, {**({"reward": reward} if reward else {}), **scorers}, whole=instructions)


def record(row: dict[str, object], where: str) -> Record:
    """A row of IFEval's form: prompt, instruction_id_list, kwargs (of each instruction; nulls are left out), key."""
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not row.get("instruction_id_list"):
        said = "no prompt that is a text" if not isinstance(prompt, str) else "no instruction_id_list, or an empty one"
        raise DataError(where, said, "a row of ifeval has prompt, instruction_id_list and kwargs")
    ids, kwargs = asked(row, where)
    meta = {"instruction_id_list": ids, "kwargs": [dict(held) for held in kwargs]}
    key = {"key": row["key"]} if "key" in row else {}
    return Prompt(prompt=[{"role": "user", "content": prompt}], meta=key | meta)


def _prompts(name: str, verdicts: Verdicts) -> Scorer:
    def judge(rollout: Rollout) -> Score:
        ids, kwargs = asked(rollout.meta, "ifeval")
        found = verdicts(rollout.text, ids, kwargs)
        missed = [kind for kind, followed in zip(ids, found, strict=True) if not followed]
        why = f"{name}: {', '.join(missed)} not followed" if missed else ""
        return Score(float(all(found)) if found else float("nan"), why=why, details={name: found})

    return lambda rollouts: [judge(rollout) for rollout in rollouts]


def instructions(answered: Answered) -> Mapping[str, Estimate]:
    """Shares of instructions, of all and by family; those of one prompt are one cluster."""
    kinds = [asked(rollout.meta, "ifeval")[0] for rollout in answered.rollouts]
    verdicts = {
        mode: [cast(list[bool], score.details[mode]) for score in answered.scores[f"prompt_{mode}"]]
        for mode in ("strict", "loose")
    }
    found = {f"instruction_{mode}": _share(kinds, verdicts[mode], answered, "") for mode in verdicts}
    for family in sorted({kind.partition(":")[0] for ids in kinds for kind in ids}):
        found[f"strict/{family}"] = _share(kinds, verdicts["strict"], answered, f"{family}:")
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _share(
    kinds: Sequence[Sequence[str]], verdicts: Sequence[Sequence[bool]], answered: Answered, family: str
) -> Estimate | None:
    """Followed instructions over asked ones; answers without one of the family have no part in it."""
    chosen = [
        [followed for kind, followed in zip(ids, row, strict=True) if kind.startswith(family)]
        for ids, row in zip(kinds, verdicts, strict=True)
    ]
    above = [float(sum(row)) if row else float("nan") for row in chosen]
    return ratio(above, [float(len(row)) for row in chosen], answered.clusters)
