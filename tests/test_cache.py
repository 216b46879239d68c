"""What is kept on disk changes nothing but the time: rows and log-probs are those that would be made anew."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from conftest import tiny_llama
from test_pipeline import table
from test_run import content
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from accord.data import cache, prepare, sources
from accord.data.batch import collate
from accord.data.loaded import Loaded
from accord.data.prepare import Limits
from accord.data.rows import Group, Rows
from accord.data.tokenizer import load_tokenizer
from accord.errors import DataError, RecipeError
from accord.recipe import Source, Table
from accord.recipe_file import parse
from accord.run import read_json
from accord.stages import run as run_recipe
from accord.stages.check import inspect

LIMITS = Limits(48)
CHATS = [{"messages": [{"role": "user", "content": f"cat {i}"}, {"role": "assistant", "content": "mat " * (i % 20)}]}
         for i in range(30)]  # fmt: skip
PAIRS = [{"prompt": f"dog {i % 7}", "chosen": "sat " * (i % 9 + 1), "rejected": "looked " * (i % 5 + 1), "prob": 0.75}
         for i in range(20)]  # fmt: skip
RANKED = [{"prompt": f"user {i}", "responses": ["hi", "hello", "the " * i, "on"], "ranks": [1, 2, 2, 1 + i % 3]}
          for i in range(1, 16)]  # fmt: skip
RATED = [{"prompt": f"the {i % 4}", "response": "answers " * (i % 6 + 1), "label": i % 3 == 0} for i in range(20)]
PLAIN = [{"text": "the cat sat on the mat " * (i + 1)} for i in range(12)]

Prepare = Callable[[Loaded, PreTrainedTokenizerFast], Rows]
FORMS: dict[str, tuple[list[dict[str, object]], Prepare]] = {
    "demonstrations": (CHATS, lambda loaded, words: prepare.demonstrations(loaded, words, LIMITS, "data")),
    "cut": (CHATS, lambda loaded, words: prepare.demonstrations(loaded, words, Limits(20, cut=True), "data")),
    "last": (CHATS, lambda loaded, words: prepare.demonstrations(loaded, words, LIMITS, "data", last=True)),
    "pairs": (PAIRS, lambda loaded, words: prepare.pairs(loaded, words, LIMITS, "data")[0]),
    "best and worst": (RANKED, lambda loaded, words: prepare.pairs(loaded, words, LIMITS, "data")[0]),
    "all pairs": (RANKED, lambda loaded, words: prepare.pairs(loaded, words, LIMITS, "data", every="with ties")[0]),
    "untied": (RANKED, lambda loaded, words: prepare.pairs(loaded, words, LIMITS, "data", every="without ties")[0]),
    "rankings": (RANKED, lambda loaded, words: prepare.rankings(loaded, words, LIMITS, "data")[0]),
    "tied": (RANKED, lambda loaded, words: prepare.rankings(loaded, words, LIMITS, "data", ties=True)[0]),
    "ratings": (RATED, lambda loaded, words: prepare.ratings(loaded, words, LIMITS, "data")[0]),
    "unpaired": (RATED, lambda loaded, words: prepare.unpaired(loaded, words, LIMITS, "data")[0]),
    "texts": (PLAIN, lambda loaded, words: prepare.texts(loaded, words, 32, "data")),
    "mixed": ([*PLAIN, *PAIRS], lambda loaded, words: prepare.mixed(loaded, words, LIMITS, "data")),
}  # fmt: skip
forms = pytest.mark.parametrize("form", list(FORMS))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def words(base: Path) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with the default chat template."""
    return cast(PreTrainedTokenizerFast, load_tokenizer(base, "test"))


def written(path: Path, form: str) -> Source:
    """The rows of a form in a file, among them some that are no records."""
    rows = FORMS[form][0]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:5], {"nothing": 1}, *rows[5:], {"text": " "}]))
    return Source(source=str(path), on_error="skip")


def made(source: Source, words: PreTrainedTokenizerFast, form: str) -> tuple[list[Group], object, int, Rows]:
    """The groups of a form, what was left out of them and how many records were not; and where they come from."""
    loaded = Loaded.of([source], "data")
    rows = FORMS[form][1](loaded, words)
    return list(rows), loaded.dropped.to_json(), loaded.kept, rows


def mapped(rows: Rows) -> Path | None:
    """The file that tokens are read from."""
    base = cast(object, rows.tokens.base)
    return Path(str(base.filename)) if isinstance(base, np.memmap) else None


def entries(home: Path) -> list[Path]:
    return sorted(home.iterdir()) if home.is_dir() else []


# ----------------------------------------------------------------------------------------------------------------- rows


@forms
def test_rows_are_the_same_without_a_cache_at_first_and_ever_after(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    source = written(tmp_path / "rows.jsonl", form)
    monkeypatch.setenv("ACCORD_CACHE", "off")
    *expected, rows = made(source, words, form)
    assert mapped(rows) is None
    assert entries(home) == []
    assert "missing_column" in cast(dict[str, object], expected[1])

    monkeypatch.setenv("ACCORD_CACHE", str(home))
    *first, _ = made(source, words, form)
    assert first == expected

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a conversation was rendered again")

    monkeypatch.setattr(PreTrainedTokenizerFast, "apply_chat_template", refuse)
    *again, rows = made(source, words, form)
    assert again == expected
    file = mapped(rows)
    assert file is not None
    assert file.is_relative_to(home)


@pytest.mark.parametrize("form", ["pairs", "rankings", "ratings"])
def test_records_are_found_again_for_rows_that_were_kept(
    tmp_path: Path, words: PreTrainedTokenizerFast, form: str
) -> None:
    make = {"pairs": prepare.pairs, "rankings": prepare.rankings, "ratings": prepare.ratings}[form]
    source = written(tmp_path / "rows.jsonl", form)
    for _ in range(2):
        loaded = Loaded.of([source], "data")
        rows, kept = make(loaded, words, LIMITS, "data")
        report = loaded.report(len(rows))
        assert len(kept) == len(rows) == len(list(kept))
        for group, record in zip(rows, kept, strict=True):
            text = str(words.decode(group[0].tokens))
            assert record.prompt[0]["content"] in text
            assert getattr(record, "chosen", getattr(record, "response", "hi")).strip() in text
        assert loaded.report(len(rows)) == report  # looking for them has not counted anything twice


def test_prompts_are_the_same_from_the_cache(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "rows.jsonl", "ratings")
    found: list[object] = []
    for where in ("off", str(home), str(home)):
        monkeypatch.setenv("ACCORD_CACHE", where)
        loaded = Loaded.of([source], "data")
        asked = prepare.prompts(loaded, words, room=11, where="data")
        assert asked[0].tokens == words.apply_chat_template(
            [{"role": "user", "content": "the 0"}], add_generation_prompt=True, return_dict=False
        )
        found.append((asked, loaded.report(len(asked))))
        assert loaded.dropped.reasons["missing_column"].count == 1
        assert loaded.dropped.reasons["repeated_prompt"].count == 16
    assert found[0] == found[1] == found[2]
    assert len(entries(home)) == 1


def test_a_fraction_that_is_held_out_is_kept_beside_the_rest(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast
) -> None:
    source = written(tmp_path / "rows.jsonl", "pairs")
    found: list[list[list[Group]]] = []
    for _ in range(2):
        train, held = prepare.load([source], 0.4, "stage.it")
        assert held is not None
        found.append([list(prepare.pairs(part, words, LIMITS, "data")[0]) for part in (train, held)])
        assert (train.dropped.reasons["missing_column"].count, "missing_column" in held.dropped.reasons) == (1, False)
    assert found[0] == found[1]
    assert len(entries(home)) == 2
    whole = list(prepare.pairs(Loaded.of([source], "data"), words, LIMITS, "data")[0])
    assert sorted(map(str, found[0][0] + found[0][1])) == sorted(map(str, whole))


def test_whatever_changes_rows_changes_the_entry(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast, base: Path
) -> None:
    source = written(tmp_path / "rows.jsonl", "demonstrations")

    def count(source: Source = source, words: PreTrainedTokenizerFast = words, limits: Limits = LIMITS) -> int:
        prepare.demonstrations(Loaded.of([source], "data"), words, limits, "data")
        return len(entries(home))

    assert [count(), count()] == [1, 1]
    assert count(limits=Limits(47)) == 2
    assert count(limits=Limits(48, cut=True)) == 3
    assert count(source.model_copy(update={"limit": 9})) == 4
    assert count(source.model_copy(update={"part": "0:50"})) == 5
    other = cast(PreTrainedTokenizerFast, load_tokenizer(base, "test"))
    other.chat_template = "{{ 'the ' }}" + str(other.chat_template)
    assert count(words=other) == 6
    prepare.demonstrations(Loaded.of([source], "data"), words, LIMITS, "data", last=True)
    assert len(entries(home)) == 7
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps(CHATS[3]) + "\n")
    assert count() == 8


def test_a_template_that_writes_the_date_has_an_entry_for_every_day(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "rows.jsonl", "demonstrations")
    words.chat_template = "{{ strftime_now('%d %b %Y') }}" + str(words.chat_template)
    prepare.demonstrations(Loaded.of([source], "data"), words, Limits(90), "data")

    class Tomorrow:
        @staticmethod
        def today() -> str:
            return "2100-01-01"

    monkeypatch.setattr("accord.data.tokenizer.date", Tomorrow)
    prepare.demonstrations(Loaded.of([source], "data"), words, Limits(90), "data")
    assert len(entries(home)) == 2


def test_what_a_function_yields_is_read_anew(tmp_path: Path, home: Path, words: PreTrainedTokenizerFast) -> None:
    (tmp_path / "mine.py").write_text(
        "import json\nfrom pathlib import Path\n\ndef rows():\n"
        "    yield from map(json.loads, Path(__file__).with_name('rows.jsonl').read_text().splitlines())\n"
    )
    source = Source(source=f"{tmp_path / 'mine.py'}:rows", on_error="skip")
    written(tmp_path / "rows.jsonl", "demonstrations")
    before = len(made(source, words, "demonstrations")[0])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps(CHATS[3]) + "\n")
    assert len(made(source, words, "demonstrations")[0]) == before + 1
    assert entries(home) == []


def test_rows_from_disk_cannot_be_changed(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    source = written(tmp_path / "rows.jsonl", "pairs")
    made(source, words, "pairs")
    *before, rows = made(source, words, "pairs")
    for array in (rows.tokens, rows.train):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    row = rows[0][0]
    row.tokens[0], row.train[0] = 7, True
    collate(rows[:4], pad=0).tokens.zero_()
    assert made(source, words, "pairs")[:3] == tuple(before)


# ---------------------------------------------------------------------------------------------------------- what may happen


def cut(entry: Path) -> None:
    os.truncate(entry / "tokens.bin", 40)


def flipped(entry: Path) -> None:
    whole = bytearray((entry / "tokens.bin").read_bytes())
    whole[9] ^= 1
    (entry / "tokens.bin").write_bytes(whole)


def torn(entry: Path) -> None:
    (entry / "index.npz").write_bytes((entry / "index.npz").read_bytes()[:50])


def gone(entry: Path) -> None:
    (entry / "train.bin").unlink()


def unsealed(entry: Path) -> None:
    (entry / "entry.json").unlink()


def foreign(entry: Path) -> None:
    (entry / "entry.json").write_text('["of another program"]')


def swapped(entry: Path) -> None:
    (entry / "records.json").write_text("{}")


@pytest.mark.parametrize("damage", [cut, flipped, torn, gone, unsealed, foreign, swapped])
def test_what_is_damaged_is_made_again(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast, damage: Callable[[Path], None]
) -> None:
    source = written(tmp_path / "rows.jsonl", "rankings")
    *expected, _ = made(source, words, "rankings")
    (entry,) = entries(home)
    before = {file.name: file.read_bytes() for file in entry.iterdir()}
    damage(entry)
    assert {file.name: file.read_bytes() for file in entry.iterdir()} != before
    *again, _ = made(source, words, "rankings")
    assert again == expected
    assert entries(home) == [entry]
    assert {file.name for file in entry.iterdir()} == before.keys()
    assert (entry / "tokens.bin").read_bytes() == before["tokens.bin"]


def test_another_program_makes_entries_of_its_own(
    tmp_path: Path, home: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "rows.jsonl", "texts")
    made(source, words, "texts")
    monkeypatch.setattr(cache, "program", lambda: "another version")
    made(source, words, "texts")
    assert len(entries(home)) == 2


def test_several_write_one_entry_at_once(home: Path) -> None:
    together = threading.Barrier(4)

    def fill(folder: Path) -> str:
        (folder / "a").write_text("one")
        together.wait(30)  # nobody is done before all have begun
        (folder / "b").write_text("two")
        return "made"

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda _: cache.keep("it", "key", fill), range(4))] == ["made"] * 4
    assert cache.find("it", "key", lambda entry: (entry / "a").read_text() + (entry / "b").read_text()) == "onetwo"
    assert len(entries(home)) == 1


def test_nothing_is_left_of_what_fails(home: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_text("one")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.keep("it", "key", fill)
    assert entries(home) == []


def test_where_nothing_can_be_written_rows_stay_in_memory(
    tmp_path: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "rows.jsonl", "pairs")
    *expected, _ = made(source, words, "pairs")
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "rows.jsonl"))  # a file
    *found, rows = made(source, words, "pairs")
    assert found == expected
    assert mapped(rows) is None
    assert f"nothing is kept in {tmp_path / 'rows.jsonl'} (File exists)" in capsys.readouterr().err


def test_the_longest_unused_leave_when_there_is_too_much(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_CACHE_GB", "0.000035")  # 35 kB

    def keep(name: str) -> None:
        cache.keep("it", name, lambda folder: (folder / "a").write_bytes(bytes(10_000)))

    def kept() -> set[str]:
        """Which are there; in this order they have been used now."""
        return {name for name in "abcd" if cache.find("it", name, lambda _: True)}

    for name in "abc":
        keep(name)
        for age, entry in enumerate(sorted(entries(home), key=lambda entry: -entry.stat().st_mtime)):
            os.utime(entry, (1e9 - age, 1e9 - age))
    assert cache.find("it", "a", lambda _: True)  # used, and so the youngest
    keep("d")
    assert kept() == {"a", "c", "d"}
    monkeypatch.setenv("ACCORD_CACHE_GB", "0.000001")
    keep("b")
    assert kept() == set()
    monkeypatch.setenv("ACCORD_CACHE_GB", "much")
    with pytest.raises(RecipeError, match="'much' is no number"):
        keep("a")


def test_a_draft_of_another_process_is_left_alone_for_a_day(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_CACHE_GB", "0.00001")
    for name in (".new", ".old"):
        (home / name).mkdir(parents=True)
        (home / name / "tokens.bin").write_bytes(bytes(50_000))
    os.utime(home / ".old", (1e9, 1e9))
    cache.keep("it", "key", lambda folder: (folder / "a").write_bytes(b"a"))
    assert [entry.name for entry in entries(home)] == [".new"]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.folder() == tmp_path / "cache"
    monkeypatch.setenv("ACCORD_CACHE", "off")
    assert cache.folder() is None
    monkeypatch.delenv("ACCORD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.folder() == Path("/home/someone/.cache/accord")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.folder() == Path("/elsewhere/accord")


# --------------------------------------------------------------------------------------------------------------- stages


def small(base: Path) -> Table:
    """Every kind of stage that reads rows; the rewards of the policy are plain."""
    made = cast(dict[str, dict[str, dict[str, object]]], table(base))
    del made["stage"]["chooser"], made["stage"]["evaluate"]
    made["stage"]["reward"] |= {"ensemble": 1, "folds": 0}
    made["stage"]["ppo"] |= {"rewards": {"@reward": 1.0}, "eval_rewards": {}, "checkpoints": False}
    made["stage"]["kto"] = {**made["stage"]["dpo"], "objective": "kto"}
    return cast(Table, made)


def test_a_run_leaves_the_same_bytes_without_a_cache_and_with_it(
    tmp_path: Path, base: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[dict[str, object]] = []
    for name, where in (("without", "off"), ("first", str(home)), ("second", str(home))):
        monkeypatch.setenv("ACCORD_CACHE", where)
        out = tmp_path / name
        run_recipe(parse(small(base)), out)
        left.append(content(out, [path for path in out.rglob("*") if path.parent != out]))
    assert left[0].keys() == left[1].keys() == left[2].keys()
    for name in left[0]:
        assert left[0][name] == left[1][name] == left[2][name], name


def preference(base: Path, out: Path, **settings: object) -> dict[str, object]:
    """What a small DPO stage leaves."""
    stage = {"kind": "preference", "model": str(base), "data": {"source": "accord:demo/pairs", "limit": 40},
             "optim": {"lr": 1e-3, "batch_size": 4, "epochs": 2}, **settings}  # fmt: skip
    compute = {"device": "cpu", "precision": "float32", "threads": 1}
    run_recipe(parse(cast(Table, {"name": "it", "compute": compute, "stage": {"it": stage}})), out)
    return content(out, (out / "it" / "model").iterdir())


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that transformers opens from now on."""
    found: list[str] = []
    real = AutoModelForCausalLM.from_pretrained

    def note(path: str, **settings: object) -> object:
        found.append(path)
        return real(path, **settings)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", note)
    return found


def test_a_sweep_over_beta_computes_the_reference_once(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    tiny_llama(seed=3, context=512).save_pretrained(other)
    load_tokenizer(base, "test").save_pretrained(other)
    paths = opened(monkeypatch)
    preference(base, tmp_path / "a", reference=str(other))
    assert other.as_posix() in paths
    for beta in (0.05, 0.5):
        paths.clear()
        preference(base, tmp_path / str(beta), reference=str(other), params={"beta": beta})
        assert paths == [str(base)]
    paths.clear()
    with torch.no_grad():  # another model under the same name
        changed = tiny_llama(seed=4, context=512)
        changed.save_pretrained(other)
    preference(base, tmp_path / "b", reference=str(other))
    assert str(other) in paths


def test_the_reference_is_computed_no_further_than_training_goes(
    tmp_path: Path, base: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"lr": 1e-3, "batch_size": 4, "steps": 2}
    preference(base, tmp_path / "few", optim=few)
    (entry,) = home.glob("reference-*")
    done = np.load(entry / "done.npy")
    assert (done[:2].all(), done[2:].any(), len(done)) == (True, False, 10)
    # What a stage with more steps needs beyond is added, and its result is that of one that begins with nothing.
    more = {**few, "epochs": 2, "steps": None}
    rest = preference(base, tmp_path / "more", optim={k: v for k, v in more.items() if v})
    monkeypatch.setenv("ACCORD_CACHE", "off")
    assert preference(base, tmp_path / "alone", optim={k: v for k, v in more.items() if v}) == rest
    assert np.load(entry / "done.npy").all()


def test_what_is_left_out_is_said_by_a_second_run_too(tmp_path: Path, base: Path) -> None:
    said: list[object] = []
    for name in "ab":
        preference(base, tmp_path / name, max_tokens=84)
        said.append(read_json(tmp_path / name / "it" / "stage.json")["data"])
    assert said[0] == said[1]
    assert cast(dict[str, dict[str, dict[str, object]]], said[0])["train"]["dropped"]["too_long"]


# ---------------------------------------------------------------------------------------------------- before any work


def seen(rows: str, kind: str, **settings: object) -> list[object]:
    """What is found of a file of rows by the check of a recipe with one stage."""
    stage = {"kind": kind, "model": "accord:tiny", "data": [{"source": rows, "on_error": "skip"}], **settings}
    return [one.contents for one in inspect(parse(cast(Table, {"name": "x", "stage": {"it": stage}})))]


@pytest.mark.parametrize(("form", "kind"), [("demonstrations", "sft"), ("pairs", "preference"), ("rankings", "reward")])
def test_the_check_finds_the_same_without_reading(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, form: str, kind: str
) -> None:
    source = written(tmp_path / "rows.jsonl", form).source
    monkeypatch.setenv("ACCORD_CACHE", "off")
    (expected,) = seen(source, kind)
    monkeypatch.setenv("ACCORD_CACHE", str(home))
    assert seen(source, kind) == [expected]
    monkeypatch.setattr(sources, "read_file", lambda path: pytest.fail(f"{path} was read again"))  # pyright: ignore
    assert seen(source, kind) == [expected]
    assert len(entries(home)) == 1


def test_the_check_reads_again_for_a_stage_that_wants_something_else(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", "ratings").source
    for _ in range(2):
        assert len(seen(source, "preference", objective="kto")) == 1
        with pytest.raises(DataError, match=r"stage.it.data: ratings do not go with objective 'dpo'"):
            seen(source, "preference", objective="dpo")
        with pytest.raises(DataError, match=r"stage.it.data: a Rating is no demonstration"):
            seen(source, "sft")


def test_the_check_reads_again_what_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    source = written(path, "pairs").source
    assert len(seen(source, "preference")) == 1
    path.write_text(path.read_text() + json.dumps(RATED[0]) + "\n")
    with pytest.raises(DataError, match=r"stage.it.data: ratings do not go with objective 'dpo'"):
        seen(source, "preference")
