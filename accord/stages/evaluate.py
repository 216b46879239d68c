"""Any number of models side by side on the same prompts, each number with its standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from accord.console import Progress as Line
from accord.data import prepare
from accord.data.batch import collate
from accord.data.prepare import Asked
from accord.data.records import Example, Message, Pair, Record, bucket, conversation
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.estimate import Estimate, mean, ratio
from accord.model import context_of, load_config, load_policy
from accord.outputs import Roles
from accord.recipe import Decoding, Evaluate, Sampling
from accord.run import append, remove, write_json
from accord.sampler import Rollout, as_batch, asks_of
from accord.sampler.local import LocalSampler
from accord.score import Score
from accord.stages.actors import open_rewards
from accord.stages.curves import trace
from accord.stages.fit import Context, read_prompts
from accord.suites import Suite, resolve


@dataclass
class Subject:
    """A model under evaluation."""

    name: str
    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass
class Answers:
    """One model's answers to one suite under one decoding, with what was thought of them."""

    rollouts: list[Rollout]
    scores: dict[str, list[Score]]
    clusters: list[int]


def run(context: Context, stage: Evaluate) -> None:
    """Answer every suite with every model, sampled and greedily; leaves results.json and answers.jsonl."""
    base = open_subject(context, stage.baseline, stage.models[stage.baseline])
    reward = open_rewards(context, stage.rewards, base.tokenizer, stage.micro_tokens) if stage.rewards else None
    asked, room = read_prompts(context, stage, base.tokenizer, base.path)
    suites = [resolve(name, f"{context.where}.suites")([a.record for a in asked], reward) for name in stage.suites]
    results: dict[str, dict[str, Estimate]] = {name: {} for name in stage.models}
    baselines: dict[str, Answers] = {}
    draft = context.folder.path / "answers.jsonl"
    remove(draft)
    others = [name for name in stage.models if name != stage.baseline]
    line = Line(context.name, len(stage.models) * len(suites) * 2)
    done = 0
    for name in [stage.baseline, *others]:
        subject = base if name == stage.baseline else open_subject(context, name, stage.models[name])
        for suite in suites:
            results[name] |= {f"{suite.name}/perplexity": p for p in [perplexity(context, stage, subject, suite)] if p}
            for label, temperature in ((suite.name, stage.sampling.temperature), (f"{suite.name}@greedy", 0.0)):
                answers = answer(context, stage, subject, suite, room, temperature)
                found = summary(answers) | against(answers, baselines.setdefault(label, answers))
                if name != stage.baseline:
                    found |= divergence(context, stage, subject, base, answers)
                results[name] |= {f"{label}/{metric}": value for metric, value in found.items()}
                append(draft, rows_of(subject, suite, answers, settings(stage.sampling, temperature)))
                done += 1
                line.step(done, {f"eval/{k}": v.value for k, v in found.items()})
    if stage.curves:
        trace(context, stage, asked, suites)
    for name in stage.models:
        context.track(f"{context.name}-{name}", 0, {metric: found.value for metric, found in results[name].items()})
    models = {name: {k: v.to_json() for k, v in results[name].items()} for name in stage.models}
    write_json(context.folder.path / "results.json", {"baseline": stage.baseline, "models": models})


def open_subject(context: Context, name: str, reference: str) -> Subject:
    """A model to evaluate, on the device."""
    where = f"{context.where}.models.{name}"
    path = context.path(reference)
    tokenizer = load_tokenizer(path, where)
    return Subject(name, path, context.engine.place(load_policy(path, tokenizer, where)), tokenizer)


def answer(context: Context, stage: Evaluate, subject: Subject, suite: Suite, room: int, temperature: float) -> Answers:
    """One answer to every prompt of a suite, scored."""
    loaded = prepare.Loaded(list(suite.records))
    asked: list[Asked] = prepare.prompts(loaded, subject.tokenizer, room=room, where=context.where)
    asks = asks_of(asked)
    sampler = LocalSampler(subject.model, subject.tokenizer, stop_ids(subject.tokenizer, subject.path))
    rollouts = context.engine.generate(
        sampler, asks, max_new_tokens=stage.sampling.max_new_tokens, temperature=temperature, seed=context.seed + 2,
        decoding=stage.sampling,
    )  # fmt: skip
    scores = {name: scorer(rollouts) for name, scorer in suite.scorers.items()}
    return Answers(rollouts, scores, [bucket(a.record, 2**60) for a in asked])


def summary(answers: Answers) -> dict[str, Estimate]:
    """Mean scores with their parts, length in tokens, and the share of answers that ended."""
    values: dict[str, list[float]] = {
        "length": [float(len(r.tokens)) for r in answers.rollouts],
        "finished": [float(r.finish == "stop") for r in answers.rollouts],
    }
    for name, scores in answers.scores.items():
        values[name] = [score.value for score in scores]
    return {k: estimate for k, v in values.items() if (estimate := mean(v, answers.clusters))}


def against(answers: Answers, baseline: Answers) -> dict[str, Estimate]:
    """Shares of prompts on which the answer's reward is above, equal to or below the baseline's, and the win rate, in
    which a tie counts half. Nothing for the baseline."""
    if answers is baseline or "reward" not in answers.scores:
        return {}
    theirs = {_key(r.prompt): s.value for r, s in zip(baseline.rollouts, baseline.scores["reward"], strict=True)}
    wins = [
        _win(score.value, theirs.get(_key(rollout.prompt), math.nan))
        for rollout, score in zip(answers.rollouts, answers.scores["reward"], strict=True)
    ]
    outcomes = {"win_rate": wins} | {
        name: [math.nan if math.isnan(win) else float(win == value) for win in wins]
        for name, value in (("win", 1.0), ("tie", 0.5), ("lose", 0.0))
    }
    return {name: found for name, values in outcomes.items() if (found := mean(values, answers.clusters))}


def _win(ours: float, theirs: float) -> float:
    if math.isnan(ours) or math.isnan(theirs):
        return math.nan
    return 0.5 if ours == theirs else float(ours > theirs)


def _key(prompt: Sequence[Message]) -> tuple[str, ...]:
    return tuple(turn["content"] for turn in prompt)


def divergence(
    context: Context, stage: Evaluate, subject: Subject, base: Subject, answers: Answers
) -> dict[str, Estimate]:
    """KL from the baseline in nats per answer: the exact sum over the vocabulary at temperature 1 on the sampled
    prefixes. Unmeasured where the two do not share their tokens."""
    if subject.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        return {}
    batch = as_batch(answers.rollouts, pad_id(subject.tokenizer), temperature=1.0)
    kl = context.engine.kl(subject.model, base.model, batch, micro_tokens=stage.micro_tokens).sum(1)
    found = mean(kl.tolist(), answers.clusters)
    return {"kl": found} if found else {}


def perplexity(context: Context, stage: Evaluate, subject: Subject, suite: Suite) -> Estimate | None:
    """Perplexity per token of the answers that the suite's records bring; None where they bring none."""
    known = [(record, text) for record in suite.records if (text := reference_answer(record))]
    if not known:
        return None
    prompts = [conversation(record) for record, _ in known]
    rows = prepare.answered(subject.tokenizer, prompts, [text for _, text in known])
    longest = stage.max_tokens or context_of(load_config(subject.path, context.where))
    kept = [i for i, row in enumerate(rows) if len(row) <= longest]
    if not kept:
        return None
    batch = collate([[rows[i]] for i in kept], pad_id(subject.tokenizer))
    out = context.engine.outputs(Roles(policy=subject.model), batch, ["logp"], micro_tokens=stage.micro_tokens)
    tokens = batch.train.sum(1).tolist()
    nll = ratio((-out.logp.sum(1)).tolist(), tokens, [bucket(known[i][0], 2**60) for i in kept])
    if nll is None:
        return None
    value = math.exp(nll.value)
    return Estimate(value, value * nll.stderr, nll.n)  # delta method


def reference_answer(record: Record) -> str:
    """The answer that a record holds up as good; empty where it holds none."""
    if isinstance(record, Pair):
        return record.chosen
    if isinstance(record, Example):
        return next((turn["content"] for turn in reversed(record.messages) if turn["role"] == "assistant"), "")
    return ""


def settings(sampling: Sampling, temperature: float) -> dict[str, object]:
    """How answers were sampled: the temperature, and what is not as it is left."""
    return {
        "temperature": temperature,
        **sampling.model_dump(include=set(Decoding.model_fields), exclude_defaults=True),
    }


def rows_of(
    subject: Subject, suite: Suite, answers: Answers, sampling: Mapping[str, object]
) -> list[dict[str, object]]:
    """Answers as rows of answers.jsonl, with all that is needed to recount."""
    rows: list[dict[str, object]] = []
    for i, rollout in enumerate(answers.rollouts):
        scores = {name: found[i] for name, found in answers.scores.items()}
        row: dict[str, object] = {
            "model": subject.name,
            "suite": suite.name,
            "prompt": rollout.prompt,
            "response": rollout.text,
            "finish": rollout.finish,
            "tokens": len(rollout.tokens),
            "sampling": dict(sampling),
            "scores": {name: score.value for name, score in scores.items() if not math.isnan(score.value)},
            "why": "; ".join(score.why for score in scores.values() if score.why),
        }
        parts = {name: score.parts for name, score in scores.items() if score.parts}
        row |= {"parts": parts} if parts else {}
        if "constraints" in rollout.meta:
            row["constraints"] = rollout.meta["constraints"]
        rows.append(row)
    return rows
