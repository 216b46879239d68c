"""The command line: thin commands over the package. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, cast

import typer

from accord import __version__
from accord.errors import AccordError, EngineError
from accord.processes import importing

if TYPE_CHECKING:
    from accord.recipe import Table

app = typer.Typer(
    help="Turn a base language model into an aligned assistant: one recipe, one command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(help="Recipe (.toml); runs/NAME/recipe.toml repeats a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings on top of the recipe: stage.ppo.optim.lr=3e-6", metavar="KEY=VALUE..."),
]
Out = Annotated[Path | None, typer.Option(help="Run folder; unless given, runs/NAME with the name of the recipe.")]


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    only: Annotated[list[str] | None, typer.Option(help="Run this stage only (may be repeated).")] = None,
    out: Out = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Run with each of several values: stage.ppo.params.kl=0.01,0.05 (may be repeated)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --sweep: seeds of the stages that it changes.")] = 1,
) -> None:
    """Run a recipe: finished stages are skipped, interrupted ones go on.

    With --sweep, stages that the values do not change are done once, and one report compares all.

    Example: accord run recipes/quickstart.toml stage.ppo.params.kl=0.1

    Example: accord run recipes/quickstart.toml --sweep stage.ppo.params.kl=0.01,0.05,0.1 --seeds 3
    """
    from accord.errors import RecipeError

    if sweep:
        if only:
            raise RecipeError("--only", "does not go with --sweep", "leave one of them out")
        with importing():
            from accord.cli.sweep import run_sweep

        run_sweep(recipe, overrides or [], sweep, seeds, out)
        return
    if seeds != 1:
        raise RecipeError("--seeds", "belongs to --sweep", "for one run say seed=1")
    from accord.recipe_file import load

    loaded = load(recipe, overrides)  # before the heavy imports: a mistake in the recipe is answered at once
    with importing():
        from accord.cli.commands import run_recipe

    run_recipe(loaded, only or [], out)


@app.command()
def check(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe (.toml) to rehearse; with --release the folder of a run.")
    ] = None,
    overrides: Overrides = None,
    out: Out = None,
    data: Annotated[str | None, typer.Option(help="Look at this data instead: file, hub id or accord:demo/...")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Data that must not leak into --data: held-out, evaluations (may be repeated)."),
    ] = None,
    clean: Annotated[Path | None, typer.Option(help="Write what is fit to learn from into this .jsonl file.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Measure how far the answers are from what this model says; with --release a stage of the run."
        ),
    ] = None,
    release: Annotated[bool, typer.Option(help="Say whether a run's model is fit to be released.")] = False,
) -> None:
    """Say what would run: read all data, show a row of each source with what is trained, rehearse every stage.

    With --data: what is wrong with a data set. Exit code 1 where something would be left out.

    With --release: a checklist of one model of a run, by default the best, each box measured. Exit code 1 where one is open.

    Example: accord check recipes/quickstart.toml

    Example: accord check --data pairs.jsonl --against held-out.jsonl --clean fit.jsonl

    Example: accord check runs/quickstart --release --model ppo
    """
    from accord.errors import RecipeError

    if release:
        if recipe is None or data or against or clean or overrides:
            raise RecipeError("--release", "takes the folder of a run", "as in accord check runs/quickstart --release")
        with importing():
            from accord.cli.release import check_release

        check_release(recipe, model)
        return
    if (recipe is None) == (data is None):
        raise RecipeError("check", "say what to look at", "either a recipe, or --data FILE")
    if recipe is None:
        with importing():
            from accord.cli.data import check_data

        check_data(str(data), against or [], clean, model)
        return
    if against or clean or model:
        raise RecipeError("check", "--against, --clean and --model belong to --data", "leave them out")
    from accord.recipe_file import load

    loaded = load(recipe, overrides)
    with importing():
        from accord.cli.commands import check_recipe

    check_recipe(loaded, out)


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    machine: Annotated[
        str | None,
        typer.Option(help="Another machine than this: h100, a100-40g, 4090, several as h100x8, cores as cpu16."),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory that there is, of a GPU or of all cores: 24GiB.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour, to see what each stage costs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, in bytes and seconds.")] = False,
) -> None:
    """Say what each stage would need before anything is run: memory by part, time, cost.

    All data is read, and the work is counted on models without weights. Exit code 1 where a stage does not fit, with what to
    change and what that saves.

    Example: accord plan recipes/quickstart.toml

    Example: accord plan recipes/quickstart.toml stage.sft.optim.micro_tokens=4096 --machine h100x8 --price 20
    """
    from accord.recipe_file import load

    load(recipe, overrides)  # before the heavy imports: a mistake in the recipe is answered at once
    with importing():
        from accord.cli.plan import plan_recipe
        from accord.plan.machines import bytes_of, named

    plan_recipe(
        lambda more: load(recipe, [*(overrides or []), *more]), named(machine) if machine else None,
        bytes_of(memory, "--memory") if memory else None, price, as_json=as_json,
    )  # fmt: skip


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="Model folder, run stage (runs/NAME/STAGE) or hub id.")],
    prompt: Annotated[str | None, typer.Option(help="Answer this and leave, instead of a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="A system turn to begin with.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal answers.")] = 0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from this many most likely tokens; 0: from all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=1e-6, max=1, help="Draw from the fewest tokens that together are this likely.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out tokens less likely than this times the most likely one.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(min=1e-6, help="Over 1: tokens that are there already become less likely; 1.1 is usual.")
    ] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text (may be repeated).")] = None,
) -> None:
    """Talk to a model. Ctrl-D ends the conversation.

    Example: accord chat runs/quickstart/ppo

    Example: accord chat runs/quickstart/ppo --temperature 1 --min-p 0.05 --stop "User:"
    """
    from accord.errors import RecipeError
    from accord.recipe import Decoding

    if stop and "" in stop:
        raise RecipeError("--stop", "is empty", "give the text that ends an answer")
    decoding = Decoding(
        top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty, stop=tuple(stop or ())
    )
    with importing():
        from accord.cli.commands import chat_with

    chat_with(
        model, prompt, system, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed, decoding=decoding
    )


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="Reward model: folder, run stage (all its members) or hub id.")],
    data: Annotated[
        str, typer.Argument(help="Pairs, demonstrations or rated answers: file, hub id or accord:demo/...")
    ],
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many records.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option(help="Leave out rows that do not hold what they should.")] = False,
    report: Annotated[
        bool,
        typer.Option(help="Measure the reward model instead: accuracy by category, best of n, calibration, length."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --report: folder for results.json and what is behind it.")
    ] = None,
) -> None:
    """Score answers with a reward model: a JSON line for each record; for pairs also the accuracy.

    With --report: how good the model is, on pairs, rankings, or rows whose `chosen` and `rejected` are lists of answers.

    Example: accord score runs/quickstart/reward accord:demo/pairs --limit 100

    Example: accord score runs/quickstart/reward reward-bench-2.jsonl --report --out runs/reward-bench
    """
    from accord.errors import RecipeError

    if out and not report:
        raise RecipeError("--out", "belongs to --report", "leave it out")
    if report:
        with importing():
            from accord.cli.reward import report_reward

        report_reward(model, data, limit, skip_bad_rows, out)
        return
    with importing():
        from accord.cli.commands import score_records

    score_records(model, data, limit, skip_bad_rows)


@app.command()
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME=WHAT or WHAT: a model folder, hub id, run stage (runs/x/ppo), accord:tiny, the URL of an "
            "OpenAI-compatible server (http://localhost:8000/v1#model), or a file of ready answers.",
            metavar="MODEL...",
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="NAME, NAME=DATA, file.py:fn or file.py:fn=DATA (may be repeated); unless given, prompts."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Prompts of suites without data of their own: file, hub id, accord:demo/..."),
    ] = None,
    responses: Annotated[
        list[str] | None,
        typer.Option(help="Ready answers, FILE or NAME=FILE: rows with prompt and response, and what the suite reads."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Name of the model to compare with; unless given, the first.")
    ] = None,
    rewards: Annotated[
        list[str] | None, typer.Option(help="Reward model or file.py:fn that judges answers (may be repeated).")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="LLM that compares with the baseline: URL, folder or hub id.")
    ] = None,
    remember: Annotated[
        list[str] | None, typer.Option(help="Text or demonstrations that the base knew: perplexity and forgetting.")
    ] = None,
    annotations: Annotated[
        list[str] | None,
        typer.Option(
            help="FILE [FILE ...]: ready judgements in AlpacaEval's form, for --suite winrate; of more than one pair of "
            "models also a leaderboard. (NAME=FILE is a model.)"
        ),
    ] = None,
    ratings: Annotated[str | None, typer.Option(help="People's ratings, which become columns.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.json and answers.jsonl.")] = Path("evaluation"),
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many records of each source.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=1e-6, help="Of the sampled answers.")] = 1.0,
    greedy: Annotated[
        bool | None, typer.Option("--greedy/--sampled", help="Greedy or sampled answers only; unless given, both.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal answers.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the key of servers.")] = "OPENAI_API_KEY",
    rescore: Annotated[
        bool,
        typer.Option("--rescore", help="Judge the answers in --out anew, by other suites if given; asks no model."),
    ] = False,
) -> None:
    """Measure models, servers or files of answers side by side; every mean comes with its 95 % interval.

    Leaves results.json and answers.jsonl in --out. The same command goes on where a stopped one was; --rescore judges stored
    answers again.

    Example: accord evaluate base=accord:tiny runs/quickstart/ppo --suite demo --limit 200 --out eval

    Example: accord evaluate http://localhost:8000/v1#my-model --data prompts.jsonl --rewards my_scores.py:polite

    Example: accord evaluate --suite ifeval --responses answers.jsonl --out eval

    Example: accord evaluate --suite winrate --annotations judgements/*.jsonl --out eval

    Example: accord evaluate runs/x/sft --suite my_suite.py:sums=questions.jsonl --remember old-texts.jsonl

    Example: accord evaluate --rescore --suite my_suite.py:sums=questions.jsonl --out eval
    """
    settings: dict[str, object] = {
        "suites": suite, "data": data, "baseline": baseline, "judge": judge, "remember": remember,
        "annotations": annotations, "ratings": ratings, "limit": limit, "seed": seed,
        "rewards": dict.fromkeys(rewards or [], 1.0) or None,
        "decode": None if greedy is None else "greedy" if greedy else "sampled",
        "sampling": {"max_new_tokens": max_new_tokens, "temperature": temperature},
        "server": {"api_key_env": api_key_env},
    }  # fmt: skip
    with importing():
        from accord.cli.evaluate import evaluate_models

    given = {key: value for key, value in settings.items() if value is not None}
    evaluate_models(models or [], responses or [], cast("Table", given), out, threads=threads, rescore=rescore)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model folder, run stage (runs/NAME/STAGE) or hub id.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist yet.")],
    merge: Annotated[bool, typer.Option(help="A whole model, an adapter merged into its base.")] = False,
    int8: Annotated[
        bool, typer.Option(help="A whole model, linear layers as 8-bit integers (compressed-tensors).")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="With --int8: text or demonstrations to measure perplexity on, before and after.")
    ] = None,
) -> None:
    """Write a model to use elsewhere: an adapter merged into its base, or 8-bit weights for transformers and vLLM.

    Example: accord export runs/quickstart/ppo --int8 --data accord:demo/choose --out chip-helper
    """
    with importing():
        from accord.cli.commands import export_model

    export_model(model, out, merge=merge, int8=int8, data=data)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folder, or folder of an evaluation; several to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(help="With several: the page to write; unless given, it lies beside the first folder."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With several: print the comparison as JSON instead.")
    ] = False,
) -> None:
    """Write report.html of a run, finished or not, or one page that compares several runs or evaluations.

    Example: accord report runs/quickstart

    Example: accord report runs/first runs/second --out comparison.html
    """
    from accord.errors import RecipeError

    if len(folders) == 1:
        from accord.report import write_report

        if out or as_json:
            raise RecipeError(
                "report", "--out and --json belong to several folders", "leave them out, or name another folder"
            )
        print(write_report(folders[0]))
        return
    from accord.report.many import comparison_json, write_comparison

    print(comparison_json(folders) if as_json else write_comparison(folders, out))


@app.command()
def doctor() -> None:
    """Say what this machine offers and what is missing.

    Example: accord doctor
    """
    with importing():
        from accord.cli.commands import examine

    examine()


@app.command()
def version() -> None:
    """Print the version.

    Example: accord version
    """
    print(__version__)


def interrupt(_: int, frame: FrameType | None) -> None:
    """Stop where the signal came: at once while a module is imported, which may catch an exception and go on."""
    while frame:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            os.write(2, b"accord: interrupted\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def spread(arguments: list[str]) -> list[str]:
    """Arguments with --annotations before each of the files that follow it, as a shell's *.jsonl gives them."""
    found: list[str] = []
    for argument in arguments:
        more = found[-2:-1] == ["--annotations"] and re.fullmatch(r"[^-=][^=]*\.(jsonl?|csv|parquet|gz)", argument)
        found += ["--annotations", argument] if more else [argument]
    return found


def main() -> None:
    """Run the command line; an AccordError is one message and its exit code, never a traceback."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it has to say is said in one message
    for number in (signal.SIGINT, signal.SIGTERM):  # both are a wish to stop; a run saves its state first
        signal.signal(number, interrupt)
    try:
        app(spread(sys.argv[1:]))
    except AccordError as error:
        print(f"accord: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # what the machine refuses, where nothing above could say more
        said = error.strerror or str(error).partition("\n")[0]
        print(f"accord: {error.filename or 'machine'}: {said}", file=sys.stderr)
        sys.exit(EngineError.exit_code)
    except KeyboardInterrupt:
        print("accord: interrupted", file=sys.stderr)
        sys.exit(130)
