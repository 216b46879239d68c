"""What each kind of stage comes to: which models it holds at what time, and how often each of them is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

from accord.data.batch import Batch, minibatches, step_count
from accord.data.chat import answer_start
from accord.data.prepare import Asked
from accord.data.rows import Group, Row
from accord.outputs import Output
from accord.plan.models import Models
from accord.plan.reading import Reading
from accord.plan.shapes import Shape
from accord.plan.sketch import Model, Phase, Sketch, bare, holding, share, some
from accord.recipe import Evaluate, Fitted, Policy, PpoParams, Preference, Pretrain, Reward, Select, Sft
from accord.stages.actors import critic_start
from accord.stages.fit import Context, Offline
from accord.stages.policy import once, open_objective
from accord.stages.preference import SURPRISED, needs
from accord.stages.reward_scale import MEASURED
from accord.stages.select import CHUNK

HELD = 64  # groups that are looked at together
ANSWERED = 8, 128  # an sft stage ends with so many answers of at most so many tokens


def sketch(context: Context, reading: Reading, made: Sketch) -> None:
    """Fill in the phases of a stage and their work."""
    stage, models = context.run.recipe.stage[context.name], Models(context)
    match stage:
        case Pretrain() | Sft():
            likelihood(stage, models, reading, made)
        case Reward():
            reward(stage, models, reading, made)
        case Preference():
            preference(stage, models, reading, made)
        case Policy():
            policy(stage, models, reading, made)
        case Select():
            select(stage, models, reading, made)
        case Evaluate():
            evaluate(stage, models, reading, made)


# ------------------------------------------------------------------------------------------------------------- fitting


def fitted(
    stage: Offline, models: Models, shape: Shape, output: Output, rows: Sequence[Group], held: Sequence[Group],
    made: Sketch, *, fits: float = 1.0,
) -> Phase:  # fmt: skip
    """A model learns from rows and is evaluated on those held out, `fits` times over; gives what it holds meanwhile."""
    optim, seed = stage.optim, models.context.seed
    asked: list[Model] = [(shape, [output])]
    holds = holding([shape], optim, processes=made.processes)
    total = step_count(len(rows), optim.batch_size, epochs=optim.epochs, steps=optim.steps)
    made.learn(holds, asked, some(rows, optim.batch_size, seed=seed, steps=total), total * fits)
    made.optimize(shape.trained, optim, total * fits)
    made.copy(shape.weights, fits * (2 + 3 * (total // stage.save)))  # a saved state holds the moments too
    if held:
        batches = some(held, HELD, seed=seed)
        made.look("evaluation", holds, asked, batches, evaluations(stage, total) * fits * share(batches, len(held)))
    return holds


def evaluations(stage: Fitted, total: int) -> int:
    """How often held-out data is looked at: before the first step, every so many, and after the last."""
    every = stage.eval or max(1, total // 10)
    return math.ceil(total / every) + (every <= total or isinstance(stage, Policy))


def likelihood(stage: Pretrain | Sft, models: Models, reading: Reading, made: Sketch) -> None:
    """A language model learns; that of an sft stage is opened once more and answers a few prompts."""
    shape = models.shape(stage.model, train=stage.lora if isinstance(stage, Sft) else None)
    fitted(stage, models, shape, "logp", reading.rows, reading.held, made)
    if isinstance(stage, Sft):
        count, most = ANSWERED
        prompts = [answer_start(group[0]) for group in (reading.held or reading.rows)[:count]]
        made.answer(Phase(frozen=shape.weights), shape, prompts, most, precision="float32")


def reward(stage: Reward, models: Models, reading: Reading, made: Sketch) -> None:
    """Members, folds and shares of the learning curve are fitted one after the other, or each by one of the processes."""
    shape, seed = models.shape(stage.model, scorer=True, train=stage.lora), models.context.seed
    parts = [1 / stage.ensemble if stage.disjoint else 1.0] * stage.ensemble
    parts += [1 - 1 / max(stage.folds, 1)] * stage.folds + stage.learning_curve
    each = Sketch(made.under, 1 if len(parts) >= made.processes else made.processes, made.budget)
    holds = fitted(stage, models, shape, "reward", reading.rows, reading.held, each, fits=sum(parts))
    scored = [*reading.held, *reading.rows[:MEASURED]]
    batches = some(scored, HELD, seed=seed)
    each.look("scores", holds, [(shape, ["reward"])], batches, share(batches, len(scored)) * len(parts))
    if stage.normalise.on == "samples":
        prompts = [answer_start(group[0]) for group in reading.rows[:MEASURED]]
        answering = models.shape(stage.normalise.policy)
        each.answer(Phase(frozen=answering.weights), answering, prompts, stage.normalise.max_new_tokens)
    made.phases += each.phases
    for name, work in each.work.items():
        made.add(name, work * (each.processes / made.processes))


def preference(stage: Preference, models: Models, reading: Reading, made: Sketch) -> None:
    """The policy learns; a reference reads the rows of a batch when it is their turn. KTO reads rows beside those it learns
    from."""
    columns, optim, seed = needs(stage, models.context.where), stage.optim, models.context.seed
    shape, rows, held = models.shape(stage.model, train=stage.lora), reading.rows, reading.held
    if "label" in columns:
        rows, held = ([group[:1] for group in of] for of in (rows, held))
    holds = fitted(stage, models, shape, "logp", rows, held, made)
    made.look("surprise", holds, [(shape, ["logp", "entropy"])], [bare(rows[:SURPRISED])], 1)
    steps = step_count(len(rows), optim.batch_size, epochs=optim.epochs, steps=optim.steps)
    if "label" in columns:
        other = some([group[1:] for group in reading.rows], optim.batch_size, seed=seed)
        made.look("baseline", holds, [(shape, ["logp"])], other, steps)
    if {"ref_logp", "label"} & set(columns):
        reference, batches = models.shape(stage.reference), some(reading.rows, optim.batch_size, seed=seed)
        times = min(steps, share(batches, len(rows))) + share(batches, len(held))
        made.copy(reference.weights)
        made.look(
            "reference", replace(holds, frozen=reference.inner(made.under)), [(reference, ["logp"])], batches, times
        )


# ----------------------------------------------------------------------------------------------------------- answering


def policy(stage: Policy, models: Models, reading: Reading, made: Sketch) -> None:
    """Answers are sampled, scored, read by policy, critic and reference, and learned from in minibatches."""
    optim, rollout, params = stage.optim, stage.rollout, stage.params
    objective = open_objective(stage, models.context.where)
    shape, reference = models.shape(stage.model, train=stage.lora), models.shape(stage.reference)
    learners: list[Model] = [(shape, [name for name in objective.outputs if name != "value"])]
    critic = ""
    if isinstance(params, PpoParams) and params.critic != "trunk":
        critic = critic_start(stage, params)
        valuing = models.shape(critic, scorer=True, train=stage.lora, learning=params.critic_layers)
        learners.append((valuing, ["score"]))
    scorers, judges = models.scorers(stage.rewards), models.scorers(stage.eval_rewards)
    beside = [(stage.reference or stage.model, reference), *scorers, *judges]
    frozen = sum(0.0 if models.shares(stage, name) else other.inner(made.under) for name, other in beside)
    holds = holding([model for model, _ in learners], optim, frozen=frozen, processes=made.processes)
    if critic and models.shares(stage, critic):
        holds = replace(holds, weights=shape.weights + learners[1][0].trained)
    made.copy(holds.weights + frozen, 2)

    each, most = rollout.batch_size // rollout.group_size, rollout.max_new_tokens
    steps = step_count(len(reading.asked), each, epochs=optim.epochs, steps=optim.steps)
    asked = list(islice(cycle(reading.asked), each))
    batch = answered(asked, most, rollout.group_size)
    made.answer(holds, shape, tokens_of(asked), most, each=rollout.group_size, times=steps)
    for _, scorer in scorers:
        made.look("scores", holds, [(scorer, ["reward"])], [batch], steps)
    if not once(stage):
        made.look("log-probs", holds, learners, [batch], steps)
    made.look("log-probs", holds, [(reference, ["logp"])], [batch], steps)
    updates = steps * params.epochs * math.ceil(rollout.batch_size / optim.batch_size)
    made.learn(
        holds, learners, minibatches(batch, optim.batch_size, 1, seed=0, step=0), updates, later=bool(stage.mix),
        apart=len(learners) > 1 and bool(objective.parts) and made.processes == 1,
    )  # fmt: skip
    made.optimize(sum(model.trained for model, _ in learners), optim, updates)
    if stage.mix:
        made.learn(holds, [(shape, ["logp"])], some(reading.mix, stage.mix.batch_size, seed=0), updates, later=True)
    if reading.held_asked:
        times = evaluations(stage, steps)
        judged(made, holds, shape, reading.held_asked, most, judges or scorers, reference, times)


def judged(
    made: Sketch, holds: Phase, shape: Shape, asked: Sequence[Asked], most: int, judges: Sequence[tuple[str, Shape]],
    reference: Shape | None, times: float,
) -> None:  # fmt: skip
    """A model answers prompts; its answers are scored, and its KL from a reference is measured."""
    batch = answered(asked, most)
    made.answer(holds, shape, tokens_of(asked), most, times=times)
    for _, judge in judges:
        made.look("scores", holds, [(judge, ["reward"])], [batch], times)
    if reference:
        made.compare(holds, shape, reference, [batch], times)


def select(stage: Select, models: Models, reading: Reading, made: Sketch) -> None:
    """So many answers to every prompt, a few prompts at a time, each judged."""
    shape, scorers, most = models.shape(stage.model), models.scorers(stage.rewards), stage.sampling.max_new_tokens
    holds = Phase(frozen=shape.weights + sum(scorer.inner(made.under) for _, scorer in scorers))
    asked = reading.asked[:CHUNK]
    times = len(reading.asked) / len(asked)
    made.answer(holds, shape, tokens_of(asked), most, each=stage.n, times=times)
    for _, scorer in scorers:
        made.look("scores", holds, [(scorer, ["reward"])], [answered(asked, most, stage.n)], times)


def evaluate(stage: Evaluate, models: Models, reading: Reading, made: Sketch) -> None:
    """Every model reads the answers that are known, answers every suite sampled and greedily, is judged, and its KL from the
    baseline measured."""
    if not stage.start:
        made.phases.append(Phase())
        return
    base, scorers, most = models.shape(None), models.scorers(stage.rewards), stage.sampling.max_new_tokens
    first = next(name for name, model in stage.local.items() if model == stage.start)
    others = {name: models.shape(reference) for name, reference in stage.local.items() if name != first}
    two = sorted(shape.weights for shape in others.values())[-2:]  # one, and the one before it until that is there
    holds = Phase(frozen=base.weights + sum(two) + sum(scorer.inner(made.under) for _, scorer in scorers))
    told = [bare(reading.rows)] if reading.rows else []
    for shape in [base, *others.values()]:
        made.copy(shape.weights)
        reference = None if shape is base else base
        if told:
            made.look("perplexity", holds, [(shape, ["logp"])], told, 1.0)
        judged(made, holds, shape, reading.asked, most, scorers, reference, 2.0 if stage.decode == "both" else 1.0)
    for curve in stage.curves.values():
        trained = models.context.run.recipe.stage[curve[1:]]
        kept = evaluations(trained, trained.optim.steps or 0) if isinstance(trained, Policy) else 0
        asking = max(1, sum(source is None for _, source in stage.asked))  # suites that share the stage's prompts
        made.answer(holds, base, tokens_of(reading.asked), most, times=(stage.best_of + kept) / asking)


def tokens_of(asked: Sequence[Asked]) -> list[int]:
    """How long each prompt is."""
    return [len(one.tokens) for one in asked]


def answered(asked: Sequence[Asked], most: int, each: int = 1) -> Batch:
    """Prompts with `each` so many answers as long as they may be, those to one prompt in one group.

    No two of a group are alike: what rows have in common at their start is read once, and that is the prompt alone.
    """
    batch = bare([[row_of(one, [k] * most) for k in range(each)] for one in asked])
    batch.loose = True
    return batch


def row_of(asked: Asked, answer: list[int]) -> Row:
    """A prompt with an answer."""
    return Row(asked.tokens + answer, [False] * len(asked.tokens) + [True] * len(answer))
