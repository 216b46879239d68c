"""The command line: what it prints, what it leaves alone, and one clear message with its exit code for every mistake."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import torch

from accord.cli import app, main

ROOT = Path(__file__).parents[1]
RECIPE = """
name = "tiny"
compute = { device = "cpu", threads = 1 }
[stage.sft]
kind = "sft"
model = "BASE"
data = { source = "rows.jsonl", on_error = "skip" }
max_tokens = 32
optim = { steps = 2, batch_size = 2 }
[stage]
reward = { kind = "reward", model = "@sft", data = "pairs.jsonl", optim = { steps = 2, batch_size = 2 } }
dpo = { kind = "preference", model = "@sft", data = "pairs.jsonl", eval_data = 0.5, optim = { steps = 2 } }
[stage.ppo]
kind = "policy"
model = "@sft"
data = "pairs.jsonl"
rewards = { "@reward" = 1 }
rollout = { batch_size = 4, max_new_tokens = 4 }
optim = { steps = 2, batch_size = 2 }
"""
ROWS = [{"prompt": f"the cat {i}", "completion": f"sat {i}"} for i in range(6)]
PAIRS = [{"prompt": f"the cat {i}", "chosen": f"sat {i}", "rejected": "no"} for i in range(6)]
STAGES = ["sft", "reward", "dpo", "ppo"]


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


class Accord(Protocol):
    """Runs `accord ...` in this process."""

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Said: ...


@pytest.fixture
def accord(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Accord]:
    threads = torch.get_num_threads()

    def call(*arguments: str | Path, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "argv", ["accord", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        printed = capsys.readouterr()
        return Said(stop.value.code, printed.out, printed.err)

    yield call
    torch.set_num_threads(threads)


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A folder with a recipe, its data, and everything that the mistakes below need."""
    here = tmp_path_factory.mktemp("cli")
    (here / "tiny.toml").write_text(RECIPE.replace("BASE", str(base)))
    (here / "rows.jsonl").write_text(lines([*ROWS, {"prompt": "x", "completion": " "}]))
    (here / "pairs.jsonl").write_text(lines(PAIRS))
    (here / "columns.jsonl").write_text(lines([{"question": "x", "completion": "y"}]))
    (here / "asked.jsonl").write_text(lines([{"prompt": "the cat"}]))
    (here / "empty.jsonl").write_text("")
    (here / "broken.py").write_text("import json\n\nimport no_such_package_of_ours\n")
    changes: dict[str, dict[str, object]] = {
        "no-eos": {"eos_token": None},
        "no-pad": {"pad_token": "<|end|>"},
        "no-prefix": {
            "chat_template": "{% for m in messages[-2:] %}{{ m.role + m.content + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
        },
    }
    for name, changed in changes.items():
        shutil.copytree(base, here / name)
        edit(here / name / "tokenizer_config.json", changed)
    edit(here / "no-pad" / "config.json", {"quantization_config": {"quant_method": "x"}})
    path = here / "no-pad" / "tokenizer.json"
    path.write_text(path.read_text().replace("<|pad|>", "<|zero|>"))
    return here


def edit(path: Path, changes: dict[str, object]) -> None:
    table = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -------------------------------------------------------------------------------------------------------------- refused

MEND = 'mend the row, or leave such rows out with on_error = "skip"'
REFUSED = {
    "missing data": (
        "stage.sft.data={here}/row.jsonl",
        "stage.sft.data: no such file: {here}/row.jsonl; did you mean 'rows.jsonl'?; "
        "paths in a recipe are relative to the recipe",
    ),
    "wrong column": (
        "stage.sft.data={here}/columns.jsonl",
        "{here}/columns.jsonl:1: no known form has the columns question, completion; prompt is missing of prompt, "
        f'completion; say which column it is: map = {{{{ prompt = "..." }}}}; {MEND}',
    ),
    "empty answer": (
        "stage.sft.data={here}/rows.jsonl",
        f"{{here}}/rows.jsonl:7: an assistant's turn is empty; it must hold text; {MEND}",
    ),
    "prompts without answers to learn from": (
        "stage.ppo.mix=accord:demo/prompts",
        "stage.ppo.mix.data: a Prompt is no demonstration; give messages, prompt/completion, pairs or rankings",
    ),
    "plain text where prompts are read": (
        "stage.ppo.data=accord:demo/text",
        "stage.ppo.data: a Text is not what the stage reads; give prompts",
    ),
    "demonstrations where pairs are read": (
        "stage.reward.data=accord:demo/chats",
        "stage.reward.data: an Example is no preference; give rows with prompt, chosen and rejected",
    ),
    "nothing held out": (
        "stage.dpo.eval_data=0.01",
        "stage.dpo.eval_data: a fraction of 0.01 leaves 6 records to train on and 0 held out; "
        "give more data or another fraction",
    ),
    "unknown key": (
        "stage.sft.optim.batchsize=3",
        "stage.sft.optim.batchsize: unknown key 'batchsize'; did you mean 'batch_size'?; known: name, lr, schedule, "
        "warmup, batch_size, epochs, steps, clip, skip, weight_decay, betas, eps, micro_tokens, checkpointing",
    ),
    "a function that does not import": (
        'stage.ppo.rewards={{"{here}/broken.py:brevity"=1}}',
        "stage.ppo.rewards.{here}/broken.py:brevity: {here}/broken.py does not import: ModuleNotFoundError: "
        "No module named 'no_such_package_of_ours' (line 3); mend the file",
    ),
    "no end token": (
        "stage.sft.model={here}/no-eos",
        "stage.sft.model: the tokenizer of {here}/no-eos has no end token (eos_token), so answers could never end; "
        "set eos_token in its tokenizer_config.json",
    ),
    "no pad token": (
        "stage.sft.model={here}/no-pad",
        "stage.sft.model: the pad token of {here}/no-pad is its end token, and its quantised weights have no free row for "
        "another; set pad_token to an unused token in its tokenizer_config.json, or start from the unquantised model",
    ),
    "no model": (
        "stage.sft.model={here}/none",
        "stage.sft.model: there is no folder {here}/none; give a model folder, a hub id or @stage",
    ),
    "no such layers": (
        'stage.dpo.lora={{targets=["query"]}}',
        "stage.dpo.lora.targets: no layer is called query; "
        "known: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
    ),
    "a name that is too long": ("stage.sft.data={here}/{long}.jsonl", "{here}/{long}.jsonl: File name too long"),
    "no such device": (
        "compute.device=tpu",
        "compute.device: there is no 'tpu' here; found: {device}; use device = \"auto\"",
    ),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_mistakes_are_told_before_any_work(accord: Accord, here: Path, tmp_path: Path, override: str, message: str):
    old = tmp_path / "old"
    (old / "sft").mkdir(parents=True)
    (old / "sft" / "stage.json").write_text('{"status": "done"}')
    (old / "recipe.toml").write_text("before")
    (old / "run.json").write_text("{}")
    before = tree(old)
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    names = {"here": here, "device": device, "long": "a" * 300}
    message, code = message.format(**names), 3 if "device" in override or "long" in override else 2
    for out in (old, tmp_path / "new"):
        said = accord("run", here / "tiny.toml", override.format(**names), "--out", out)
        assert said == Said(code, "", f"accord: {message}\n")
    assert tree(old) == before
    assert not (tmp_path / "new").exists()


def test_a_template_whose_prompt_is_no_prefix_is_told_with_its_stage(accord: Accord, here: Path, tmp_path: Path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"messages": [
        {"role": role, "content": "hi"} for role in ("user", "assistant", "user", "assistant")]}))  # fmt: skip
    data, model = f"stage.sft.data={tmp_path}/long.jsonl", f"stage.sft.model={here}/no-prefix"
    said = accord("run", here / "tiny.toml", data, model, "--out", tmp_path / "new")
    assert (said.code, said.out) == (2, "")
    assert "a prompt is not a prefix of the conversation that goes on from it" in said.err
    assert "stage.sft" in said.err
    assert not (tmp_path / "new").exists()


def test_half_a_character_is_told_with_its_line(accord: Accord, here: Path, tmp_path: Path):
    """Text cut inside an emoji, as found in scraped data, is no text that a tokenizer takes."""
    (tmp_path / "cut.jsonl").write_text(lines([ROWS[0], {"prompt": "hi", "completion": "well \ud83d"}]))
    said = accord("run", here / "tiny.toml", f"stage.sft.data={tmp_path}/cut.jsonl", "--out", tmp_path / "new")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"accord: {tmp_path}/cut.jsonl:2: ")
    assert not (tmp_path / "new").exists()


def test_a_missing_recipe(accord: Accord, tmp_path: Path):
    for command in ("run", "check"):
        said = accord(command, tmp_path / "none.toml", "--out", tmp_path / "new")
        message = f"{tmp_path}/none.toml: No such file or directory; give the path of a recipe (.toml)"
        assert said == Said(2, "", f"accord: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_not_there(accord: Accord, here: Path, tmp_path: Path):
    said = accord("run", here / "tiny.toml", "--only", "grpo", "--out", tmp_path / "new")
    assert said == Said(2, "", "accord: --only: there is no stage 'grpo'; known: sft, reward, dpo, ppo\n")
    assert list(tmp_path.iterdir()) == []


def test_check_tells_of_layers_that_are_not_there(accord: Accord, here: Path, tmp_path: Path):
    said = accord("check", here / "tiny.toml", 'stage.reward.lora={targets=["query"]}', "--out", tmp_path / "new")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("accord: stage.reward.lora.targets: no layer is called query; known: down_proj, ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(accord: Accord, here: Path, tmp_path: Path):
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "notes.txt").write_text("mine")
    said = accord("run", here / "tiny.toml", "--out", tmp_path)
    fix = "name another folder with --out, or move it away"
    assert said == Said(2, "", f"accord: --out: {tmp_path}/sft is there already and not of a run; {fix}\n")
    assert tree(tmp_path) == {"sft/notes.txt": b"mine"}


def test_a_folder_that_cannot_be_made(accord: Accord, here: Path, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "run"
    said = accord("run", here / "tiny.toml", "--out", out)
    assert said == Said(3, "", f"accord: {out}: Not a directory; write to another folder\n")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_installed_command_answers_recipe_errors_at_once(tmp_path: Path):
    """In a process of its own: exit code, one line, and nothing heavy imported."""
    code = (
        "import sys\nfrom accord.cli import main\nsys.argv = ['accord', 'run', 'none.toml']\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr == "accord: none.toml: No such file or directory; give the path of a recipe (.toml)\n"


@pytest.mark.parametrize("name", [command.callback.__name__ for command in app.registered_commands if command.callback])
def test_help_has_an_example(accord: Accord, name: str):
    said = accord(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"Example: accord {name}" in said.out


def test_help_of_the_run_folder_names_its_default(accord: Accord):
    """Square brackets in a help text are markup, and vanish."""
    for command in ("run", "check"):
        text = " ".join(accord(command, "--help").out.replace("│", " ").split())
        assert "Run folder; unless given, runs/NAME with the name of the recipe." in text


def test_help_lists_every_command(accord: Accord):
    said = accord("--help")
    assert said.code == 0
    assert all(f" {name} " in said.out for name in ("run", "check", "plan", "chat", "score", "report", "doctor"))


# ----------------------------------------------------------------------------------------------------------------- plan


def test_plan_shows_what_each_stage_needs(accord: Accord, here: Path):
    said = accord("plan", here / "tiny.toml", "--machine", "cpu4", "--price", "3")
    assert said.code == 0
    lines = {cells[0]: cells[1:] for cells in (re.split(" {2,}", line) for line in said.out.splitlines())}
    assert said.out.startswith("4 Zen 4 cores: 16.0 GiB, 400 GFLOPS float32, 800 GFLOPS bfloat16, 19 GB/s")
    assert lines["of a process"] == STAGES
    assert {"Python and libraries", "gradients", "activations", "peak", "time", "cost"} < lines.keys()


def test_plan_ends_with_1_where_a_stage_does_not_fit(accord: Accord, here: Path):
    (here / "one.toml").write_text((here / "tiny.toml").read_text().partition("[stage]")[0])
    said = accord("plan", here / "one.toml", "--machine", "cpu4", "--memory", "100MiB")
    assert said.code == 1
    assert said.err.endswith(
        "accord: plan: sft would not fit into 100 MiB; change what is listed, or take a larger machine\n"
    )
    assert said.out.count("and there is 100 MiB. What would help:") == said.out.count("of half the size") == 1


@pytest.mark.parametrize(("options", "message"), [
    (("--machine", "v100"), "--machine: 'v100' is not in the table; known: h200, "),
    (("--memory", "much"), "--memory: 'much' is no amount of memory; write it as 24GiB, or 80GB"),
])  # fmt: skip
def test_plan_refuses_machines_that_it_does_not_know(
    accord: Accord, here: Path, options: tuple[str, ...], message: str
):
    said = accord("plan", here / "tiny.toml", *options)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"accord: {message}")


# ------------------------------------------------------------------------------------------------------------ run, check


def test_check_shows_what_is_trained_and_what_would_run(accord: Accord, here: Path, tmp_path: Path):
    said = accord("check", here / "tiny.toml", "--out", tmp_path / "run")
    assert said.code == 0
    assert said.out.startswith(
        "\nstage.sft.data: 6 Example, 1 left out\n"
        f"  left out, empty_answer: 1, as {here}/rows.jsonl:7: an assistant's turn is empty\n"
        "  first row, trained between ⟦ and ⟧:\n  | User: the cat 0\n  | Assistant:⟦ sat 0<|end|>⟧\n"
        "\nstage.reward.data: 6 Pair\n"
    )
    head, plan = said.out.split("\nwhat would run:\n")
    assert "\nstage.dpo.data: 6 Pair\n" in head
    assert "sat" not in head[head.index("stage.ppo.data") :]  # prompts are what a policy stage reads of a pair
    assert [line.split() for line in plan.splitlines()[2:]] == [
        ["sft", "sft", "begins"], ["reward", "reward", "begins"], ["dpo", "preference", "begins"],
        ["ppo", "policy", "begins"],
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="session")
def finished(here: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and what it printed in `printed.txt`."""
    out = tmp_path_factory.mktemp("finished") / "run"
    command = [sys.executable, "-m", "accord", "run", str(here / "tiny.toml"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (out / "printed.txt").write_text(done.stdout)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def begun(said: Said) -> list[str]:
    """The stages that a run did, of those that it had to."""
    assert said.code == 0, said.err
    begun = [line.split()[0] for line in said.err.splitlines() if line.endswith(" begins")]
    skipped = [line.split()[0] for line in said.err.splitlines() if line.endswith(" done before, skipped")]
    assert sorted(begun + skipped) == sorted(STAGES)
    return begun


def test_run_prints_a_summary_and_the_report(finished: Path):
    printed = (finished / "printed.txt").read_text().splitlines()
    assert printed[1].split() == ["stage", "kind", "time", "result"]
    assert [line.split()[:2] for line in printed[3:7]] == [
        ["sft", "sft"], ["reward", "reward"], ["dpo", "preference"], ["ppo", "policy"],
    ]  # fmt: skip
    assert printed[-1] == f"report: {finished}/report.html"
    assert (finished / "report.html").is_file()
    assert json.loads((finished / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("overrides", "redone"),
    [
        ([], []),
        (["stage.sft.save=7", "stage.sft.optim.micro_tokens=64", "stage.ppo.optim.micro_tokens=64"], []),
        (["stage.reward.optim.lr=1e-3"], ["reward", "ppo"]),
        (["stage.sft.optim.lr=1e-3"], STAGES),
    ],
)
def test_a_second_run_does_what_has_changed(
    accord: Accord, here: Path, copied: Path, overrides: list[str], redone: list[str]
):
    before = tree(copied)
    assert begun(accord("run", here / "tiny.toml", *overrides, "--out", copied)) == redone
    kept = [name for name in before if name.split("/")[0] in set(STAGES) - set(redone)]
    assert {name: (copied / name).read_bytes() for name in kept} == {name: before[name] for name in kept}


def test_a_stage_on_top_of_an_outdated_one_is_not_taken_for_done(accord: Accord, here: Path, copied: Path):
    """With --only, a stage must not be made from an earlier stage's old output and recorded as made from the new."""
    change = "stage.sft.optim.lr=1e-3"
    said = accord("run", here / "tiny.toml", change, "--only", "dpo", "--out", copied)
    assert (said.code, "sft" in said.err) == (2, True)
    assert "dpo" in begun(accord("run", here / "tiny.toml", change, "--out", copied))


# ------------------------------------------------------------------------------------------------------- other commands


def test_chat_answers_a_prompt(accord: Accord, finished: Path):
    said = accord("chat", finished / "sft", "--prompt", "hi", "--max-new-tokens", "4")
    assert (said.code, said.err) == (0, "")
    assert said.out.strip()
    assert accord("chat", finished / "sft" / "model", "--prompt", "hi", "--max-new-tokens", "4") == said


def test_chat_samples_as_it_is_told(accord: Accord, finished: Path):
    def said(*settings: str) -> str:
        return accord("chat", finished / "sft", "--prompt", "hi", "--max-new-tokens", "40", *settings).out

    greedy, free = said("--temperature", "0"), said("--temperature", "1")
    assert said("--temperature", "1", "--top-k", "1") == said("--temperature", "1", "--min-p", "1") == greedy != free
    assert said("--temperature", "1", "--top-p", "1e-6") == greedy
    assert said("--temperature", "0", "--repetition-penalty", "1000") != greedy
    middle = free.strip(" …\n")[1:3]
    assert said("--temperature", "1", "--stop", "never", "--stop", middle).strip() == free.partition(middle)[0].strip()


def test_chat_needs_no_settings(accord: Accord, finished: Path):
    """The default length of an answer gives way where the model's context is short."""
    assert accord("chat", finished / "sft", "--prompt", "hi").code == 0


def test_chat_holds_a_conversation_over_a_pipe(accord: Accord, finished: Path):
    said = accord("chat", finished / "sft", "--temperature", "0", "--max-new-tokens", "4", stdin="hi\n\nthe cat\n")
    assert (said.code, said.err) == (0, "")
    first = accord("chat", finished / "sft", "--temperature", "0", "--max-new-tokens", "4", "--prompt", "hi")
    assert said.out.startswith(first.out)
    assert len(said.out) > len(first.out)


def test_chat_refuses_what_cannot_answer(accord: Accord, finished: Path, tmp_path: Path):
    said = accord("chat", finished / "reward", "--prompt", "hi", "--max-new-tokens", "4")
    assert (said.code, said.out) == (2, "")
    assert "is a reward model" in said.err
    said = accord("chat", tmp_path / "none", "--prompt", "hi")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert str(tmp_path / "none") in said.err


def test_score_prints_rows_and_accuracy(accord: Accord, here: Path, finished: Path):
    said = accord("score", finished / "reward", here / "pairs.jsonl", "--limit", "4")
    assert said.code == 0
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["chosen"] for row in rows] == ["sat 0", "sat 1", "sat 2", "sat 3"]
    right = sum(row["rewards"]["chosen"] > row["rewards"]["rejected"] for row in rows)
    assert said.err.startswith(f"accuracy {right / 4:.3f} ± ")
    assert said.err.endswith(" on 4 pairs\n")
    said = accord("score", finished / "reward", here / "rows.jsonl", "--skip-bad-rows")
    assert (said.code, len(said.out.splitlines())) == (0, 6)
    assert said.err == f"left out, empty_answer: 1, as {here}/rows.jsonl:7: an assistant's turn is empty\n"
    said = accord("score", finished / "sft", here / "pairs.jsonl")
    message = f"score: {finished}/sft/model is not a reward model; give the folder of a reward stage"
    assert said == Said(2, "", f"accord: {message}\n")


ANSWERS = "give pairs, rankings, ratings or demonstrations"
# What is typed after `accord`, and what it says. {here} and {run} are folders, {long} is a long question.
MISUSED = {
    "a sweep of one stage": ("run {here}/tiny.toml --sweep stage.ppo.params.kl=0,1 --only ppo",
                             "--only: does not go with --sweep; leave one of them out"),
    "seeds of one run": ("run {here}/tiny.toml --seeds 3", "--seeds: belongs to --sweep; for one run say seed=1"),
    "nothing to check": ("check", "check: say what to look at; either a recipe, or --data FILE"),
    "two things to check": ("check {here}/tiny.toml --data {here}/pairs.jsonl",
                            "check: say what to look at; either a recipe, or --data FILE"),
    "a clean recipe": ("check {here}/tiny.toml --clean fit.jsonl",
                       "check: --against, --clean and --model belong to --data; leave them out"),
    "no records": ("check --data {here}/empty.jsonl",
                   "--data: there is no record in {here}/empty.jsonl; give another file"),
    "a clean copy over a file": ("check --data {here}/pairs.jsonl --clean {here}/rows.jsonl",
                                 "--clean: {here}/rows.jsonl is there already; name a file that is not"),
    "a clean copy nowhere": ("check --data {here}/pairs.jsonl --clean {here}/none/fit.jsonl",
                             "--clean: there is no folder {here}/none; make it, or name a file in another"),
    "no answers to measure": ("check --data {here}/asked.jsonl --model {run}/sft",
                              f"--model: there are no answers to measure; {ANSWERS}"),
    "no answers to score": ("score {run}/reward {here}/asked.jsonl", f"data: a Prompt has no answer to score; {ANSWERS}"),
    "a chat that stops at nothing": ("chat {run}/sft --prompt hi --stop=",
                                     "--stop: is empty; give the text that ends an answer"),
    "a chat with a whole run": ("chat {run} --prompt hi",
                                "{run}: is a whole run; name one of its stages: {run}/dpo, {run}/ppo, {run}/reward, {run}/sft"),
    "a chat that is too long": ("chat {run}/sft --prompt {long}",
                                "chat: the conversation has 606 tokens, and there is room for 256; "
                                "begin a new one, or ask for shorter answers with --max-new-tokens"),
    "a chat with no model": ("chat {here}/none --prompt hi",
                             "chat: no model could be read from {here}/none (there is no such folder); "
                             "give a model folder or a hub id"),
    "a reward model in integers": ("export {run}/reward --int8 --out {here}/new",
                                   "export: {run}/reward/model is a reward model; "
                                   "only policies are written as integers; leave --int8 out"),
}  # fmt: skip


@pytest.mark.parametrize(("typed", "message"), MISUSED.values(), ids=MISUSED.keys())
def test_commands_that_cannot_be_done_say_why(accord: Accord, here: Path, finished: Path, typed: str, message: str):
    names = {"here": here, "run": finished, "long": "?" * 600}
    before = tree(here)
    said = accord(*(word.format(**names) for word in typed.split()))
    assert (said.code, said.err) == (2, f"accord: {message.format(**names)}\n")
    assert tree(here) == before


def test_doctor(accord: Accord):
    said = accord("doctor")
    assert said.code == 0
    assert {"python", "torch", "device", "precision"} <= {line.split()[0] for line in said.out.splitlines()}


def test_report(accord: Accord, copied: Path, tmp_path: Path):
    (copied / "report.html").unlink()
    assert accord("report", copied) == Said(0, f"{copied}/report.html\n", "")
    assert (copied / "report.html").is_file()
    said = accord("report", tmp_path / "none")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(f"accord: {tmp_path}/none")
    assert "Errno" not in said.err
    assert "; " in said.err  # how to fix it
