"""The benchmark compares like with like: TRL's trainers take the same rows to the same losses; what differs is said."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import compare, growth, material, table
from benchmarks.peers.probe import Result
from benchmarks.works import SIZES, WORKS, Job, Work

ROOT = Path(__file__).parents[1]
STEPS = 3
TINY = SIZES["tiny"]
SMALL = {
    **{name: replace(WORKS[name], batch=4) for name in ("sft", "reward", "dpo")},
    "sample-varied": replace(WORKS["sample-varied"], batch=6, answer=(2, 24)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and rows of the tiny shape for every work here."""
    made = tmp_path_factory.mktemp("benchmarks")
    material.prepare(TINY, list(SMALL.values()), made, steps=dict.fromkeys(SMALL, STEPS))
    return made


def run(worker: str, name: str, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A worker on a small work, in this process."""
    monkeypatch.setitem(WORKS, name, SMALL[name])
    AcceleratorState._reset_state(reset_partial_state=True)
    module = importlib.import_module(f"benchmarks.peers.{worker}")
    job = Job(name, "tiny", "float32", str(folder), str(out / worker), steps=STEPS, warmup=0, threads=1)
    result = module.run(job)
    AcceleratorState._reset_state(reset_partial_state=True)
    return result


@pytest.mark.filterwarnings("ignore")  # of TRL and transformers, about each other
@pytest.mark.parametrize(
    ("name", "peers"), [("sft", ["trl_sft", "plain_sft"]), ("reward", ["trl_reward"]), ("dpo", ["trl_dpo"])]
)
def test_peers_take_the_same_rows_to_the_same_losses(
    name: str, peers: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="trl is not installed")
    ours = run("accord_train", name, folder, tmp_path, monkeypatch)
    assert len(set(ours.losses)) == STEPS  # something is learnt, so that later steps compare updates
    assert (ours.once > 0) == (name == "dpo")
    for peer in peers:
        theirs = run(peer, name, folder, tmp_path, monkeypatch)
        found = {check.name: check for check in compare.checked(SMALL[name], ours, theirs, "float32")}
        assert found["rows"].holds, found["rows"].said
        assert found["counts"].holds, found["counts"].said
        assert found["losses"].holds, found["losses"].said
        assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)
        assert ours.tokens == theirs.tokens
        assert ours.squares == theirs.squares


def test_samplers_say_the_same_where_the_model_leaves_no_choice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = run("accord_sample", "sample-varied", folder, tmp_path, monkeypatch)
    theirs = run("transformers_sample", "sample-varied", folder, tmp_path, monkeypatch)
    wanted = [json.loads(line)["length"] for line in (folder / "sample-varied.jsonl").read_text().splitlines()]
    assert sorted(wanted) == [2, 3, 5, 9, 15, 24]
    assert ours.trained == theirs.trained == [sum(wanted)] * STEPS
    assert ours.digests == theirs.digests


def test_the_actor_never_ends_an_answer(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "qwen2"):
        size = replace(TINY, kind=kind, kv_heads=4 if kind == "gpt2" else 2)
        language = material.Language.of(size, tmp_path / kind)
        actor = material.made(size, "actor", language)
        prompt = language.tokenizer.apply_chat_template(
            [{"role": "user", "content": "zuk"}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        answers = torch.tensor([[id] for id in sorted(language.ids)])
        with torch.no_grad():
            logp = actor(torch.cat([prompt.expand(len(answers), -1), answers], 1)).logits.log_softmax(-1)
        mute = [token for token in range(size.vocab) if token not in language.ids]
        mute.remove(int(prompt[0, -1]))  # it stands before every answer
        sampled = logp[:, prompt.shape[1] - 1 :, mute]
        assert float(sampled.max()) < -12


# ------------------------------------------------------------------------------------------------------------ compared

WORK = replace(WORKS["sft"], batch=2, warmup=1)


def result(side: str, seconds: list[float], **other: object) -> Result:
    """Steps of two rows with 100 tokens."""
    count = len(seconds)
    plain = Result(
        side=side, seconds=seconds, own=[2 * value for value in seconds], foreign=[0.0] * count, losses=[1.0] * count,
        sequences=[2] * count, tokens=[100] * count, squares=[5000] * count, trained=[60] * count, digests=["a"] * count,
        metrics=["loss"], peak_mb=100.0,
    )  # fmt: skip
    return replace(plain, **other)


def compared(ours: list[Result], peer: list[Result], work: Work = WORK) -> compare.Compared:
    return compare.compare(work, TINY, ours, peer, rate=1e12, checks=[])


def test_ratios_are_of_the_measured_steps() -> None:
    found = compared(
        [result("accord", [9.0, 1.0, 1.0], peak_mb=50.0), result("accord", [9.0, 1.0, 1.0])],
        [result("TRL", [18.0, 2.0, 4.0]), result("TRL", [18.0, 2.0, 2.0])],
    )
    assert found.speed == compare.Spread(2.0, 2.5, 3.0)
    assert found.effort == compare.Spread(2.0, 2.5, 3.0)
    assert found.first == compare.Spread(0.5, 0.5, 0.5)
    assert found.memory.low == 0.5
    assert found.tokens_per_second[0] == 100.0
    assert found.sequences_per_second[0] == 2.0


def test_growth_is_per_token_relative_to_the_first() -> None:
    found = growth.Growth("SFT", [2.0, 4.0, 10.0, 12.0], [1000, 2000, 4000, 8000])
    assert found.line() == "| SFT | 1,000 | 2,000 | 1.00 | 1.00 | 1.25 | 0.75 |"


def test_growth_prepares_one_two_four_and_eight_times_as_many_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(growth, "RECORDS", 400)
    language = material.Language.of(TINY, tmp_path / "tokenizer")
    found = growth.prepared(TINY, language, tmp_path)
    assert found.units == [400, 800, 1600, 3200]
    assert [len((tmp_path / f"{i}.jsonl").read_text().splitlines()) for i in range(5)] == [400, *found.units]


def test_what_serves_all_steps_counts_for_the_measured_ones() -> None:
    found = compared([result("accord", [9.0, 1.0, 1.0], once=3.0, once_own=12.0)], [result("TRL", [9.0, 1.0, 1.0])])
    assert found.speed.middle == pytest.approx(0.5)  # 2 s of its own, 2 of 3 s for the two measured of three steps
    assert found.effort.middle == pytest.approx(4 / 12)


def test_disturbed_steps_and_pairs_are_left_out_and_said() -> None:
    noisy = result("accord", [9.0, 1.0, 7.0], foreign=[0.9, 0.0, 0.9])
    found = compared([noisy], [result("TRL", [9.0, 2.0, 2.0])])
    assert (found.speed.middle, found.disturbed) == (2.0, 0)
    hopeless = result("accord", [9.0, 7.0, 7.0], foreign=[0.0, 0.9, 0.9])
    peer = result("TRL", [9.0, 2.0, 2.0])
    found = compared([hopeless, result("accord", [9.0, 1.0, 1.0])], [peer, peer])
    assert (found.speed.middle, found.disturbed) == (2.0, 1)
    assert "1 of 2 pairs disturbed" in table.lines("sft", found)[0]
    found = compared([hopeless], [peer])
    assert found.speed.middle == pytest.approx(2 / 7)
    assert "1 of 1 pairs disturbed by other processes, counted" in table.lines("sft", found)[0]


def test_operations_are_those_of_the_linear_layers_and_causal_attention() -> None:
    size = replace(TINY, layers=1, width=4, heads=2, kv_heads=1, feed_forward=8, vocab=16)
    linear = sum(torch.nn.Linear(a, b).weight.numel() for a, b in [(4, 4), (4, 2), (4, 2), (4, 4)])
    linear += sum(torch.nn.Linear(a, b).weight.numel() for a, b in [(4, 8), (4, 8), (8, 4), (4, 16)])
    forward = 2 * linear * 3 + 2 * (1 + 2 + 3) * 2 * 4  # three tokens see one, two and three; two products of 4 each
    diagonal = 2 * 3 * 4  # counted by halves: a row of T has T^2 / 2 of T (T + 1) / 2
    assert compare.operations(WORKS["sft"], size, 3, 9) == 3 * (forward - diagonal)
    assert compare.operations(WORKS["dpo"], size, 3, 9) == 4 * (forward - diagonal)
    assert compare.operations(WORKS["reward"], size, 3, 9) == 3 * (forward - diagonal - 2 * 3 * 4 * 16)  # no LM head


@pytest.mark.parametrize(
    ("other", "failed"),
    [
        ({}, []),
        ({"losses": [1.0, 1.0, 1.0009]}, []),
        ({"losses": [1.0, 1.0, 1.0011]}, ["losses"]),
        ({"digests": ["a", "b", "a"]}, ["rows"]),
        ({"trained": [60, 60, 61]}, ["counts"]),
        ({"metrics": ["loss", "entropy"]}, ["metrics"]),
        ({"metrics": ["loss", "learning_rate", "max_reward"]}, []),
    ],
)
def test_doing_less_is_a_failed_check(other: dict[str, object], failed: list[str]) -> None:
    ours, peer = result("accord", [1.0] * 3), result("TRL", [1.0] * 3, **other)
    checks = compare.checked(WORK, ours, peer, "float32")
    assert [check.name for check in checks if check.holds is False] == failed
    said = "\n".join(table.lines("sft", replace(compared([ours], [peer]), checks=checks)))
    assert said.count("!!! FAILED") == len(failed)


def test_bfloat16_losses_are_shown_and_not_judged() -> None:
    peer = result("TRL", [1.0] * 3, losses=[1.0, 1.5, 1.0])
    found = {check.name: check for check in compare.checked(WORK, result("accord", [1.0] * 3), peer, "bfloat16")}
    assert found["losses"].holds is None
    assert "5.0e-01" in found["losses"].said


# ------------------------------------------------------------------------------------------------------------- command


def test_sizes_for_a_gpu_are_refused_without_one() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = CliRunner().invoke(command.app, ["--size", "0.5b"])
    assert done.exit_code == 2
    assert "0.5b needs a GPU" in done.output


@pytest.mark.parametrize("given", [["--only", "sftt"], ["--size", "16m"], ["--precision", "half"]])
def test_unknown_names_are_answered_with_the_known(given: list[str]) -> None:
    done = CliRunner().invoke(command.app, given)
    assert done.exit_code == 2
    assert "known:" in done.output


def test_the_command_runs_both_sides_and_writes_page_and_raw_results(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="trl is not installed")
    page, raw = tmp_path / "page.md", tmp_path / "raw.json"
    page.write_text("before\n<!-- benchmark: tiny float32 -->\nto be replaced\n<!-- end -->\nafter\n")
    given = [
        "--only",
        "reward",
        "--size",
        "tiny",
        "--precision",
        "fp32",
        "--pairs",
        "1",
        "--steps",
        "1",
        "--threads",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *given, "--page", str(page), "--raw", str(raw)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ok losses" in done.stdout
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "to be replaced" not in text
    assert "| reward | TRL |" in text
    record = json.loads(raw.read_text())["tiny float32 reward"]
    assert [len(runs) for runs in record["runs"].values()] == [1, 1]
    again = page.read_text()
    table.fill(page, table.load(raw))
    assert page.read_text() == again


def test_what_a_page_has_no_block_for_is_put_at_its_end(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Performance\n")
    found = asdict(compared([result("accord", [1.0, 1.0])], [result("TRL", [3.0, 3.0])]))
    record: table.Record = {
        "work": "sft", "size": "tiny", "precision": "float32", "machine": "one", "date": "today", "rate": None,
        "compared": [found], "skipped": ["TRL 1.12 left out: why"], "runs": {},
    }  # fmt: skip
    for _ in range(2):
        table.fill(page, {"tiny float32 sft": record})
        text = page.read_text()
        assert text.startswith("# Performance\n\n## tiny, float32\n")
        assert text.count("**3.00 (3.00 to 3.00)**") == 1
        assert "- sft: TRL 1.12 left out: why" in text
