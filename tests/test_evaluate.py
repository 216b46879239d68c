"""Evaluation of anything: models, servers, ready answers; resume, re-scoring, questions, what was known; the command."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from conftest import tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord.cli import main
from accord.endpoint import Endpoint
from accord.engine import Engine
from accord.errors import DataError, EngineError, RecipeError
from accord.recipe import Evaluate, Sampling, Server, Table
from accord.recipe_file import load, parse
from accord.run import read_json, read_rows
from accord.score.text import distinct, self_similarity, words
from accord.stages import evaluate as evaluation
from accord.stages import fingerprints
from accord.stages import run as run_recipe
from accord.stages.check import inspect
from accord.stages.evaluate_tasks import open_subject
from accord.stages.fit import Context
from accord.subjects import Subject
from accord.subjects.local import Local
from accord.subjects.server import Behind
from accord.suites import Question

Rows = list[dict[str, object]]
SUITE = """
import math
from accord.data.records import Prompt
from accord.estimate import Estimate
from accord.score import Score
from accord.suites import Question, Suite


def polite(rollout):
    said = "please" in rollout.text.lower()
    return Score(float(said), details={"verdicts": [said, rollout.meta.get("kind", "?")]})


def manners(records, reward):
    return Suite("manners", records, {"polite": lambda rollouts: [polite(r) for r in rollouts]},
                 whole=lambda a: {"answers": Estimate(len(a.rollouts), 0.0, len(a.rollouts))})


def choices(records, reward):
    turn = lambda text: [{"role": "user", "content": text}]
    questions = [Question(turn("Where does a cat sit?"), ["on the mat", "in a dog", "0 1 2"])]
    questions.append(Question([], ["the cat sat", "dog the on"]))

    def grade(told):
        return {"first": Estimate(sum(t.logp[0] == max(t.logp) for t in told) / len(told), 0.1, len(told))}

    return Suite("choices", questions=questions, grade=grade)


def broken(records, reward):
    return Suite("manners", records, {"polite": lambda rollouts: [boom(r) for r in rollouts]})


def boom(rollout):
    if rollout.group >= 6:
        raise RuntimeError("the machine is switched off")
    return polite(rollout)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_suite.py").write_text(SUITE)
    return tmp_path


def write(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def accord(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The command in this process: its exit code, and what it said."""
    before, sys.argv = sys.argv, ["accord", *words]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(str(end.code or 0))
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr()
    return code, said.out + said.err


def models_in(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    return cast("dict[str, dict[str, dict[str, float]]]", read_json(out / "results.json")["models"])


# -------------------------------------------------------------------------------------------------------- ready answers


def test_ready_answers_are_scored_without_a_model(here: Path, fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Yes please.", "", "No.", "Please, sit."]
    rows: Rows = [{"prompt": f"say {i}", "response": text, "meta": {"kind": i}} for i, text in enumerate(texts)]
    write(here / "mine.jsonl", rows)
    code, said = accord(
        capsys, "evaluate", "--suite", "my_suite.py:manners", "--responses", "mine.jsonl", "--out", "out"
    )
    assert code == 0, said
    found = models_in(here / "out")["mine"]
    assert found["manners/polite"] == pytest.approx({"value": 0.5, "stderr": np.std([1, 0, 0, 1], ddof=1) / 2, "n": 4})
    assert found["manners/answers"]["value"] == 4
    assert found["manners/words"]["value"] == (3 + 0 + 2 + 4) / 4
    assert "manners/length" not in found  # nobody knows their tokens, or whether they came to their end
    assert "manners/finished" not in found
    assert not [name for name in found if "@greedy" in name]
    answers = read_rows(here / "out/answers.jsonl")
    assert [row["response"] for row in answers] == texts
    assert [row["verdicts"] for row in answers] == [[True, 0], [False, 1], [False, 2], [True, 3]]
    assert answers[0]["scores"] == {"polite": 1.0}
    low, high = 0.5 - 1.96 * 0.288675, 0.5 + 1.96 * 0.288675
    assert f"0.500 [{low:.3f}, {high:.3f}]" in said


def test_answers_are_found_by_their_prompts(here: Path, fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
    prompts: Rows = [{"prompt": [{"role": "user", "content": f"say {i}"}]} for i in range(6)]
    write(here / "prompts.jsonl", prompts)
    write(here / "a.jsonl", [{"prompt": f"say {i}", "response": "please", "finish": "stop"} for i in (3, 1, 0, 2)])
    write(here / "b.jsonl", [{"instruction": f"say {i}", "output": "no" if i % 2 else "please"} for i in range(5)])
    code, said = accord(capsys, "evaluate", "--suite", "my_suite.py:manners", "--data", "prompts.jsonl",
                        "--responses", "first=a.jsonl", "b.jsonl", "--baseline", "b", "--out", "out")  # fmt: skip
    assert code == 0, said
    assert "first: 2 of 6 prompts of manners are left out" in said
    found = models_in(here / "out")
    assert found["first"]["manners/polite"]["n"] == 4
    assert found["first"]["manners/finished"] == {"value": 1.0, "stderr": 0.0, "n": 4}
    assert found["b"]["manners/polite"]["value"] == pytest.approx(3 / 5)
    told = cast("dict[str, dict[str, dict[str, float]]]", read_json(here / "out/results.json")["paired"])
    difference = told["first"]["manners/polite"]
    apart = np.array([1, 1, 1, 1]) - np.array([1, 0, 1, 0])
    assert difference["value"] == pytest.approx(apart.mean())
    assert difference["stderr"] == pytest.approx(apart.std(ddof=1) / 2)
    assert difference["needed"] == math.ceil((1.959964 + 0.841621) ** 2 * apart.var(ddof=1) / 0.03**2)
    assert f"to see a difference of 3 points {difference['needed']} prompts are needed" in said


def test_mistakes_are_answered_before_any_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "a.jsonl", [{"prompt": "hi", "answr": "x"}])
    code, said = accord(capsys, "evaluate", "--responses", "a.jsonl", "--suite", "my_suite.py:manners")
    assert (code, "no answer in its columns (prompt, answr)" in said) == (2, True)
    code, said = accord(capsys, "evaluate", "accord:tiny", "--suite", "prompts")
    assert (code, said) == (2, "accord: stage.evaluate.data: is missing: suite 'prompts' has no data of its own; "
                            'give data, or suites = ["prompts=rows.jsonl"]\n')  # fmt: skip
    code, said = accord(capsys, "evaluate", "--suite", "nonsense", "accord:tiny")
    assert (code, "unknown suite 'nonsense'" in said) == (2, True)
    code, said = accord(capsys, "evaluate", "--suite", "demo")
    assert (code, "name at least one model" in said) == (2, True)
    code, said = accord(capsys, "evaluate", "--suite", "demo", "accord:tiny", "--out", str(here), "--rescore")
    assert (code, "there is no evaluation in" in said) == (2, True)
    (here / "results.json").write_text("{}")
    code, said = accord(capsys, "evaluate", "--suite", "demo", "accord:tiny", "--out", str(here))
    assert (code, "is there already and not of an evaluation" in said) == (2, True)


# --------------------------------------------------------------------------------------------------------------- server


class Stub(ThreadingHTTPServer):
    """Says the last word of a prompt, as an OpenAI-compatible server does; `trouble` are statuses that it gives first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Rows = []
        self.keys: list[str | None] = []
        self.trouble: list[int] = []
        self.delay = 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Stub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._say(200, {"data": [{"id": "first-model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.trouble:
            self._say(self.server.trouble.pop(), {"error": {"message": "not now"}})
            return
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        time.sleep(self.server.delay)
        text = f" {body['messages'][-1]['content'].split()[-1]} please"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}
        self._say(200, {"choices": [choice], "usage": {"completion_tokens": 7}})

    def _say(self, status: int, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.shutdown()
    made.server_close()


def test_a_server_is_asked_with_all_settings(
    here: Path, stub: Stub, fresh: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    write(here / "prompts.jsonl", [{"prompt": f"say {i}", "system": "Be kind."} for i in range(5)])
    code, said = accord(capsys, "evaluate", f"{stub.url}#a/model-x", "--suite", "my_suite.py:manners=prompts.jsonl",
                        "--max-new-tokens", "9", "--temperature", "0.5", "--api-key-env", "MY_KEY", "--out", "out")  # fmt: skip
    assert code == 0, said
    assert len(stub.asked) == 10  # sampled and greedily
    assert {cast(float, body["temperature"]) for body in stub.asked} == {0.5, 0.0}
    assert {(body["model"], body["max_tokens"]) for body in stub.asked} == {("a/model-x", 9)}
    assert len({cast(int, body["seed"]) for body in stub.asked}) == 5
    assert cast("list[dict[str, str]]", stub.asked[0]["messages"])[0] == {"role": "system", "content": "Be kind."}
    assert set(stub.keys) == {"Bearer secret"}
    found = models_in(here / "out")["model-x"]
    assert found["manners/polite"]["value"] == found["manners@greedy/polite"]["value"] == 1
    assert (found["manners/length"]["value"], found["manners/finished"]["value"]) == (7, 0)
    assert "secret" not in "".join(path.read_text() for path in (here / "out").iterdir() if path.is_file())


def test_a_server_in_trouble_is_asked_again(stub: Stub) -> None:
    stub.trouble = [503, 429, 500]
    made = Endpoint(stub.url, "m", Server(retries=3, timeout=5), "here", pause=0.01)
    said = made.complete([{"role": "user", "content": "say 1"}], {"temperature": 0.0})
    assert "choices" in said
    assert Endpoint.of(stub.url, Server(), "here").model == "first-model"


def test_a_server_that_cannot_be_asked_is_named(stub: Stub, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub.trouble = [401]
    made = Endpoint(stub.url, "m", Server(retries=3), "here", pause=0.01)
    with pytest.raises(
        EngineError, match=r"HTTP 401: .*not now.*; put the key into the environment variable OPENAI_API_KEY"
    ):
        made.complete([], {})
    gone = Endpoint("http://127.0.0.1:9/v1", "m", Server(retries=1), "here", pause=0.01)
    with pytest.raises(EngineError, match=r"could not be asked, 2 times: .*refused"):
        gone.complete([], {})
    stub.delay = 2
    slow = Endpoint(stub.url, "m", Server(retries=0, timeout=0.2), "here")
    with pytest.raises(EngineError, match="timed out"):
        slow.complete([{"role": "user", "content": "say"}], {})


def test_the_command_ends_with_3_where_no_server_is(
    here: Path, fresh: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "prompts.jsonl", [{"prompt": "say 1"}])
    (here / "r.toml").write_text(
        'name = "r"\n[stage.e]\nkind = "evaluate"\nmodels = { gone = "http://127.0.0.1:9/v1#m" }\n'
        'suites = ["my_suite.py:manners=prompts.jsonl"]\nserver = { retries = 0 }\n'
    )
    code, said = accord(capsys, "run", "r.toml")
    assert (code, "stage.e.models.gone: http://127.0.0.1:9/v1/chat/completions could not be asked" in said) == (3, True)


def test_requests_go_out_side_by_side(stub: Stub) -> None:
    stub.delay = 0.2
    subject = Behind("m", Endpoint(stub.url, "m", Server(concurrency=8), "here"))
    asks = subject.asks([PROMPT(f"say {i}") for i in range(8)], lambda *_: PROMPT(""))
    began = time.monotonic()
    answers = subject.answer(asks, Sampling(), temperature=1.0, seed=0)
    assert time.monotonic() - began < 8 * 0.2 / 2
    assert [answer.rollout.text for answer in answers] == [f"{i} please" for i in range(8)]


def PROMPT(text: str):
    from accord.data.records import Prompt

    return Prompt(prompt=[{"role": "user", "content": text}])


# --------------------------------------------------------------------------------------------------- recipes and models


def recipe_of(base: Path, here: Path, **more: object) -> Table:
    stage = {"kind": "evaluate", "models": {"m": str(base)}, "suites": [f"{here}/my_suite.py:manners={here}/prompts.jsonl"],
             "sampling": {"max_new_tokens": 6}, **more}  # fmt: skip
    compute = {"device": "cpu", "precision": "float32", "threads": 1}
    return cast(Table, {"name": "e", "compute": compute, "stage": {"e": stage}})


def test_suites_have_data_of_their_own_which_counts(here: Path, base: Path) -> None:
    (here / "sub").mkdir()
    write(here / "sub/p.jsonl", [{"prompt": "say 1"}])
    (here / "sub/r.toml").write_text(
        f'name = "r"\n[stage.e]\nkind = "evaluate"\nmodels = {{ m = "{base}" }}\n'
        'suites = ["prompts=p.jsonl", "../my_suite.py:manners=./p.jsonl", "demo"]\n'
    )
    recipe = load(here / "sub/r.toml")
    rows = here / "sub/p.jsonl"
    assert recipe.stage["e"].suites == [f"prompts={rows}", f"{here}/my_suite.py:manners={rows}", "demo"]  # pyright: ignore
    assert [seen.where for seen in inspect(recipe)] == [
        "stage.e.suites.prompts", f"stage.e.suites.{here}/my_suite.py:manners", "stage.e.suites.demo",
    ]  # fmt: skip
    before = fingerprints(recipe)
    write(rows, [{"prompt": "say 2"}])
    assert fingerprints(recipe) != before
    write(rows, [{"question": "?"}])
    with pytest.raises(DataError, match=r"p\.jsonl:1: no known form"):
        inspect(recipe)
    rows.unlink()
    with pytest.raises(RecipeError, match="no such file"):
        inspect(recipe)


def test_models_servers_and_files_stand_side_by_side(here: Path, base: Path, stub: Stub, fresh: None) -> None:
    write(here / "prompts.jsonl", [{"prompt": f"say {i}"} for i in range(4)])
    write(here / "given.jsonl", [{"prompt": f"say {i}", "response": "please"} for i in range(4)])
    made = recipe_of(base, here, models={"m": str(base), "served": f"{stub.url}#x", "given": str(here / "given.jsonl")})
    run_recipe(parse(made), here / "run")
    found = models_in(here / "run/e")
    assert list(found) == ["m", "served", "given"]
    assert found["served"]["manners@greedy/polite"]["value"] == found["given"]["manners/polite"]["value"] == 1
    assert "manners/length" in found["m"]
    assert "manners/kl" not in found["served"]
    before = fingerprints(parse(made))
    write(here / "given.jsonl", [{"prompt": f"say {i}", "response": "no"} for i in range(4)])
    assert fingerprints(parse(made)) != before


def test_likelihoods_are_those_of_plain_transformers(base: Path, engine: Engine) -> None:
    subject = Local.open("m", str(base), engine, Sampling(), max_tokens=None, micro_tokens=60, where="here")
    turns = [{"role": "user", "content": "Where does a cat sit?"}]
    questions = [
        Question(turns, ["on the mat", "in a dog 0 1 2 3 4"]),  # pyright: ignore[reportArgumentType]
        Question([], ["the cat sat on the mat", "a dog"]),
    ]
    found = subject.likelihoods(questions)
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)

    def logp(start: list[int], text: str) -> tuple[float, int]:
        said = tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens = torch.tensor([start + said])
        each = model(tokens).logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])[len(start) - 1 :, 0]
        return float(each.detach().double().sum()), len(said)

    prompt = tokenizer("User: Where does a cat sit?\nAssistant:", add_special_tokens=False)["input_ids"]
    expected = [
        [logp(prompt, " on the mat"), logp(prompt, " in a dog 0 1 2 3 4")],
        [logp([1], "the cat sat on the mat"), logp([1], "a dog")],
    ]
    for told, wanted in zip(found, expected, strict=True):
        assert told.logp == pytest.approx([value for value, _ in wanted], rel=1e-4)
        assert told.tokens == [count for _, count in wanted]


def test_questions_are_graded_once_and_again(
    here: Path, base: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "prompts.jsonl", [{"prompt": "say 1"}])
    made = recipe_of(base, here, suites=[f"{here}/my_suite.py:choices"])
    run_recipe(parse(made), here / "run")
    found = models_in(here / "run/e")["m"]
    assert list(found) == ["choices/first"]
    rows = read_rows(here / "run/e/likelihoods.jsonl")
    assert [(row["suite"], row["index"], len(cast(list[float], row["logp"]))) for row in rows] == [
        ("choices", 0, 3),
        ("choices", 1, 2),
    ]
    first = np.mean([np.argmax(cast(list[float], row["logp"])) == 0 for row in rows])
    assert found["choices/first"]["value"] == first


def test_what_was_known_and_is_forgotten(here: Path, base: Path, fresh: None, tmp_path: Path, tokenizer) -> None:
    other = tmp_path / "other"
    tiny_llama(context=512, seed=5).save_pretrained(other)
    tokenizer.save_pretrained(other)
    texts = ["the cat sat on the mat", "a user asks a question", "the dog"]
    write(here / "known.jsonl", [{"text": text} for text in texts])
    write(here / "prompts.jsonl", [{"prompt": f"say {i}"} for i in range(3)])
    made = recipe_of(base, here, models={"m": str(base), "other": str(other)}, remember=str(here / "known.jsonl"),
                     decode="sampled")  # fmt: skip
    run_recipe(parse(made), here / "run")
    found = models_in(here / "run/e")
    reader = AutoTokenizer.from_pretrained(base)
    nats: dict[str, list[float]] = {}
    counts: list[int] = []
    for name, path in (("m", base), ("other", other)):
        model = AutoModelForCausalLM.from_pretrained(path)
        for text in texts:
            tokens = torch.tensor([[1, *reader(text, add_special_tokens=False)["input_ids"], 1]])
            logp = model(tokens).logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])
            nats.setdefault(name, []).append(-float(logp.detach().sum()))
            counts = [*counts, tokens.shape[1] - 1] if name == "m" else counts
    for name in ("m", "other"):
        assert found[name]["memory/perplexity"]["value"] == pytest.approx(
            math.exp(sum(nats[name]) / sum(counts)), rel=1e-4
        )
    rise = np.array(nats["other"]) - np.array(nats["m"])
    value = rise.sum() / sum(counts)
    residual = (rise - value * np.array(counts)) / sum(counts)
    assert found["other"]["memory/forgetting"]["value"] == pytest.approx(value, rel=1e-3)
    assert found["other"]["memory/forgetting"]["stderr"] == pytest.approx(
        math.sqrt((residual**2).sum() * 3 / 2), rel=1e-3
    )
    assert "memory/forgetting" not in found["m"]
    ratio = found["other"]["memory/perplexity"]["value"] / found["m"]["memory/perplexity"]["value"]
    assert math.exp(found["other"]["memory/forgetting"]["value"]) == pytest.approx(ratio)


# --------------------------------------------------------------------------------------------------- resume, re-scoring


class Killed(BaseException):
    """As if the process had been killed."""


def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(
    here: Path, base: Path, stub: Stub, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "prompts.jsonl", [{"prompt": f"say {i}"} for i in range(8)])
    made = parse(
        recipe_of(base, here, models={"m": str(base), "s": f"{stub.url}#x"}, rewards={f"{here}/my_suite.py:polite": 1})
    )
    monkeypatch.setattr(evaluation, "open_subject", few_at_a_time)
    run_recipe(made, here / "whole")
    asked = len(stub.asked)
    calls: list[tuple[float, list[int]]] = []
    answer, count = Local.answer, 0

    def counting(self: Local, asks, sampling, *, temperature: float, seed: int):
        nonlocal count
        count += 1
        if count == 5:
            raise Killed
        calls.append((temperature, [ask.number for ask in asks]))
        return answer(self, asks, sampling, temperature=temperature, seed=seed)

    monkeypatch.setattr(Local, "answer", counting)
    with pytest.raises(Killed):
        run_recipe(made, here / "run")
    half = (here / "run/e/answers.jsonl").read_text()
    assert half.count("\n") == 3 + 3 + 2 + 3
    (here / "run/e/answers.jsonl").write_text(half + '{"model": "m", "suite": "mann')  # cut in the middle of a line
    run_recipe(made, here / "run")
    done = [(temperature, number) for temperature, numbers in calls for number in numbers]
    assert len(done) == len(set(done)) == 16
    assert len(stub.asked) == 2 * asked
    assert read_rows(here / "run/e/answers.jsonl") == read_rows(here / "whole/e/answers.jsonl")
    assert read_json(here / "run/e/results.json") == read_json(here / "whole/e/results.json")


def few_at_a_time(context: Context, stage: Evaluate, name: str) -> Subject:
    subject = open_subject(context, stage, name)
    return replace(subject, chunk=3) if isinstance(subject, Local) else subject


def test_a_process_that_is_killed_repeats_no_request(
    here: Path, stub: Stub, fresh: None, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.delay = 0.05
    write(here / "prompts.jsonl", [{"prompt": f"say {i}"} for i in range(96)])
    command = [sys.executable, "-m", "accord", "evaluate", f"m={stub.url}#x", "--sampled", "--suite",
               "my_suite.py:manners=prompts.jsonl", "--out", "out"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    answers = here / "out/answers.jsonl"
    while not (answers.exists() and answers.read_bytes().count(b"\n") >= 32):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = len(read_rows(answers))
    assert 32 <= kept < 96
    time.sleep(0.2)
    stub.asked.clear()
    stub.delay = 0.0
    code, said = accord(capsys, *command[3:])
    assert code == 0, said
    assert len(stub.asked) == 96 - kept
    assert [row["index"] for row in read_rows(answers)] == list(range(96))
    code, said = accord(capsys, *command[3:])
    assert "out: done before" in said
    assert len(stub.asked) == 96 - kept


def test_stored_answers_are_judged_again_without_a_model(
    here: Path, stub: Stub, fresh: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "prompts.jsonl", [{"prompt": f"say {i}"} for i in range(4)])
    suite = ["--suite", "my_suite.py:manners=prompts.jsonl"]
    code, said = accord(capsys, "evaluate", f"m={stub.url}#x", *suite, "--out", "out")
    assert code == 0, said
    before, results = read_rows(here / "out/answers.jsonl"), read_json(here / "out/results.json")
    stub.asked.clear()
    code, said = accord(capsys, "evaluate", "--rescore", "--out", "out")
    assert code == 0, said
    assert (read_rows(here / "out/answers.jsonl"), read_json(here / "out/results.json")) == (before, results)
    (here / "strict.py").write_text(SUITE.replace('"please" in', '"thank you" in').replace('"manners"', '"thanks"'))
    code, said = accord(capsys, "evaluate", "--rescore", "--suite", "strict.py:manners=prompts.jsonl", "--out", "out")
    assert code == 0, said
    found = models_in(here / "out")["m"]
    assert (found["thanks/polite"]["value"], found["thanks@greedy/polite"]["value"]) == (0, 0)
    assert found["manners/polite"]["value"] == 1  # what other suites have left stays
    assert len(read_rows(here / "out/answers.jsonl")) == 2 * len(before)
    assert not stub.asked


# ----------------------------------------------------------------------------------------------------------- text, help


def test_diversity_equals_its_definition() -> None:
    texts = ["a b c", "a b d", "c c c"]
    assert words("Don't, stop!") == ["don", "'", "t", ",", "stop", "!"]
    one, two = distinct(texts, 1), distinct(texts, 2)
    assert one
    assert two
    assert one.value == 4 / 9  # a b c d
    assert two.value == 4 / 6  # ab bc bd cc
    left = np.array([3 / 6, 3 / 6, 4 / 6])  # without each text: {a b d c}, {a b c}, {a b c d}
    left[0] = len({"a", "b", "d", "c"}) / 6
    assert one.stderr == pytest.approx(math.sqrt(2 / 3 * ((left - left.mean()) ** 2).sum()))
    grams = [{"ab": 1, "bc": 1}, {"ab": 1, "bd": 1}, {"cc": 2}]
    matrix = np.array([[gram.get(name, 0) for name in ("ab", "bc", "bd", "cc")] for gram in grams], float)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    cosine = (matrix @ matrix.T)[np.triu_indices(3, 1)]
    found = self_similarity(texts)
    assert found
    assert found.value == pytest.approx(cosine.mean())
    alike = self_similarity(["the same words"] * 4)
    assert alike
    assert alike.value == pytest.approx(1)
    assert self_similarity(["one"]) is None


def test_the_error_of_self_similarity_is_that_of_a_simulation() -> None:
    draw = np.random.default_rng(0)

    def sample() -> list[str]:
        topics = draw.beta(0.4, 0.4, size=80)  # some say much of one thing, some of the other
        return [" ".join("ab" if draw.random() < topic else "cd" for _ in range(20)) for topic in topics]

    found = [self_similarity(sample()) for _ in range(150)]
    values = [each.value for each in found if each]
    errors = [each.stderr for each in found if each]
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.2)


def test_the_suite_of_the_page_works(here: Path, fresh: None, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/evaluation/README.md").read_text(encoding="utf-8")
    (here / "sums.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    rows: Rows = [{"prompt": f"{n} + 1", "response": "3", "meta": {"answer": str(n + 1)}} for n in (1, 2)]
    write(here / "said.jsonl", rows)
    code, said = accord(capsys, "evaluate", "--suite", "sums.py:sums", "--responses", "said.jsonl", "--out", "out")
    assert code == 0, said
    assert models_in(here / "out")["said"]["sums/right"]["value"] == 0.5
    assert [row["said"] for row in read_rows(here / "out/answers.jsonl")] == ["3", "3"]


def test_help_teaches_by_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = accord(capsys, "evaluate", "--help")
    assert code == 0
    assert said.count("Example: accord evaluate") >= 4
