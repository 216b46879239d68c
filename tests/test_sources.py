"""Sources of every kind, read to records: files, functions, embedded and hub data, with each mistake's message."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accord.data.dropped import Dropped
from accord.data.records import Example, Message, Pair, Prompt, Record, Text, conversation
from accord.data.sources import check, fingerprint, read, read_each
from accord.errors import AccordError, DataError, EngineError, RecipeError
from accord.recipe import Source

SKIP = 'mend the row, or leave such rows out with on_error = "skip"'
WHERE = "stage.sft.data"

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(3)]


def answered(prompt: str, answer: str) -> Example:
    return Example(
        messages=[{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], train="last"
    )


EXPECTED = [answered(row["prompt"], row["completion"]) for row in ROWS]


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def records(path: Path | str, dropped: Dropped | None = None, **options: object) -> list[Record]:
    source = Source.model_validate({"source": str(path), **options})
    return list(read(source, dropped or Dropped(), WHERE))


def said(kind: type[AccordError], path: Path | str, **options: object) -> str:
    with pytest.raises(kind) as caught:
        records(path, None, **options)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", lines(ROWS)),
        ("rows.jsonl.gz", lines(ROWS)),
        ("blank lines.jsonl", "\ufeff" + lines(ROWS).replace("\n", "\n\n")),
        ("rows.json", json.dumps(ROWS, indent=1)),
        ("lines.json", lines(ROWS)),
        ("rows.json.gz", json.dumps(ROWS)),
        ("rows.csv", "prompt,completion\n" + "".join(f"{r['prompt']},{r['completion']}\n" for r in ROWS)),
        ("rows.csv.gz", "prompt,completion\r\n" + "".join(f"{r['prompt']},{r['completion']}\r\n" for r in ROWS)),
    ],
)
def test_files(tmp_path: Path, name: str, text: str):
    assert records(write(tmp_path / name, text)) == EXPECTED


def test_parquet(tmp_path: Path):
    rows = [{"messages": turns.messages, "chosen": None} for turns in EXPECTED]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert records(tmp_path / "rows.parquet") == [Example(messages=turns.messages) for turns in EXPECTED]


def test_text_is_read_by_paragraphs(tmp_path: Path):
    path = write(tmp_path / "text.txt", "\nFirst line,\nsecond line.\n\n \nNext one.\r\n")
    assert records(path) == [Text(text="First line,\nsecond line."), Text(text="Next one.")]
    turns: list[list[Message]] = [
        [{"role": "user", "content": text}] for text in ("First line,\nsecond line.", "Next one.")
    ]
    assert records(path, map={"prompt": "text"}) == [Prompt(prompt=prompt) for prompt in turns]


def test_cells_of_a_csv_may_hold_lines_commas_and_long_text(tmp_path: Path):
    rows = [("a, b\nc", "x" * 200_000), ('say "hi"', "y")]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), *rows])
    assert records(tmp_path / "rows.csv") == [answered(*row) for row in rows]


def test_map_renames_columns_and_reaches_inside(tmp_path: Path):
    row = {"question": "Q", "answers": [{"text": "good"}, {"text": "bad"}], "rejected": "worst", "a.b": "dotted"}
    path = write(tmp_path / "rows.jsonl", json.dumps(row))
    prompt: list[Message] = [{"role": "user", "content": "Q"}]
    renamed = {"prompt": "question", "chosen": "answers.0.text"}
    assert records(path, map=renamed) == [Pair(prompt=prompt, chosen="good", rejected="worst")]
    renamed = {"prompt": "question", "completion": "a.b", "unused": "rejected"}
    assert records(path, map=renamed) == [answered("Q", "dotted")]


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_missing_file(tmp_path: Path):
    write(tmp_path / "chats.jsonl", lines(ROWS))
    assert said(RecipeError, tmp_path / "chat.jsonl") == (
        f"stage.sft.data: no such file: {tmp_path / 'chat.jsonl'}; did you mean 'chats.jsonl'?; "
        "paths in a recipe are relative to the recipe"
    )


def test_unknown_suffix(tmp_path: Path):
    for name, suffix in (("rows.tsv", ".tsv"), ("rows.parquet.gz", ".parquet.gz"), ("rows", "")):
        path = write(tmp_path / name, "")
        assert said(RecipeError, path) == (
            f"stage.sft.data: {path} has the unknown suffix {suffix!r}; "
            "known: .jsonl, .json, .csv, .txt, .jsonl.gz, .json.gz, .csv.gz, .txt.gz, .parquet; "
            "convert it, or read it with a 'file.py:fn'"
        )


def test_neither_file_nor_hub_id():
    assert said(RecipeError, "no/such/thing") == (
        "stage.sft.data: 'no/such/thing' is neither a file nor a dataset of the hub; known: files (.jsonl, .json, "
        ".csv, .txt, .jsonl.gz, .json.gz, .csv.gz, .txt.gz, .parquet), hub ids ('organisation/name'), 'file.py:fn', "
        "'accord:demo/name'"
    )


@pytest.mark.parametrize("name", ["org/name", "name", "Org-1/na.me_2"])
def test_hub_ids_need_no_network_to_be_checked(name: str):
    check(Source(source=name), WHERE)


def test_wrong_column(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", lines([*ROWS, {"prompt": "Q", "choosen": "a", "rejected": "b"}]))
    assert said(DataError, path) == (
        f"{path}:4: no known form has the columns prompt, choosen, rejected; chosen is missing of prompt, chosen, "
        f'rejected; say which column it is: map = {{ chosen = "choosen" }}; {SKIP}'
    )
    assert said(DataError, path, map={"prompt": "question"}) == (
        f"{path}:1: no column 'question', which map names as prompt; columns: prompt, completion; {SKIP}"
    )


def test_empty_answer_names_its_line(tmp_path: Path):
    path = write(tmp_path / "rows.csv", 'prompt,chosen,rejected\n"two\nlines",a,b\nQ,a,\n')
    assert said(DataError, path) == f"{path}:4: rejected is empty; it must hold text; {SKIP}"


def test_torn_json_line(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", lines(ROWS) + '{"prompt": "Q", "compl')
    wanted = f"{path}:4: not JSON: Unterminated string starting at (column 17); each line is one JSON object; {SKIP}"
    assert said(DataError, path) == wanted
    path = write(tmp_path / "rows.json", '[{"prompt": "Q"},\n {"prompt"]')
    wanted = f"{path}:2: not JSON: Expecting ':' delimiter (column 11); it must be a list of objects; mend the file"
    assert said(DataError, path) == wanted


def test_json_that_python_does_not_read(tmp_path: Path):
    deep, long = "[" * 100_000, '{"prompt": "Q", "score": ' + "9" * 5000 + "}"
    for text, error in ((deep, "maximum recursion depth exceeded"), (long, "Exceeds the limit (4300 digits)")):
        path = write(tmp_path / "rows.jsonl", f"{text}\n")
        assert said(DataError, path).startswith(f"{path}:1: no JSON that can be read: {error}")
        path = write(tmp_path / "rows.json", f"[{text}]")
        found = said(DataError, path)
        assert found.startswith(f"{path}: no JSON that can be read: {error}")
        assert found.endswith("; it must be a list of objects; mend the file")


def test_rows_that_are_no_objects(tmp_path: Path):
    path = write(tmp_path / "rows.json", '["a"]')
    assert said(DataError, path) == f"{path} row 1: a row is str; it must be an object with named columns; {SKIP}"
    path = write(tmp_path / "rows.csv", "prompt,completion\nQ,A,B\n")
    assert said(DataError, path) == f"{path}:2: more cells than columns; quote cells that hold commas; {SKIP}"


def test_files_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "caf\xe9"}')
    assert said(DataError, path) == f"{path}: is not UTF-8 text (byte 15); convert it to UTF-8"
    path = tmp_path / "torn.jsonl.gz"
    path.write_bytes(gzip.compress(lines(ROWS).encode())[:-9])
    wanted = "cannot be read: Compressed file ended before the end-of-stream marker was reached; fetch the file again"
    assert said(DataError, path) == f"{path}: {wanted}"
    path = write(tmp_path / "rows.parquet", "PAR")
    assert said(DataError, path).startswith(f"{path}: cannot be read: Parquet file size is 3 bytes")
    path = write(tmp_path / "rows.csv", 'prompt,completion\n"Q,A\n')
    wanted = f"{path}:2: not CSV: unexpected end of data; quotes inside a cell are doubled; mend the file"
    assert said(DataError, path) == wanted


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read")
def test_a_file_that_the_machine_does_not_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.symlink_to("/proc/self/mem")
    assert said(DataError, path) == f"{path}: cannot be read: Input/output error; make it readable, or fetch it again"


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path):
    bad = [
        '{"prompt": "Q", "completion": " "}',
        '{"prompt": "Q", ',
        '{"chosen": "\\n\\nHuman: A\\n\\nAssistant: x", "rejected": "\\n\\nHuman: B\\n\\nAssistant: y"}',
        '{"best": 1}',
        '{"prompt": "Q", "completion": ""}',
    ]
    path = write(tmp_path / "rows.jsonl", lines(ROWS) + "\n".join(bad))
    dropped = Dropped()
    assert records(path, dropped, on_error="skip") == EXPECTED
    assert {name: found.count for name, found in dropped.reasons.items()} == {
        "empty_answer": 2,
        "bad_row": 1,
        "no_common_prompt": 1,
        "missing_column": 1,
    }
    assert dropped.reasons["empty_answer"].example == f"{path}:4: an assistant's turn is empty"


def test_nothing_at_all_is_an_error(tmp_path: Path):
    empty, bad = write(tmp_path / "empty.jsonl", "\n"), write(tmp_path / "bad.jsonl", "{\n{\n")
    with pytest.raises(DataError) as caught:
        list(read_each([Source(source=str(empty))], Dropped(), WHERE))
    assert str(caught.value) == (
        f"stage.sft.data: no record in {empty}; the source is empty, or part leaves nothing of it; look at the source"
    )
    with pytest.raises(DataError) as caught:
        list(read_each([Source(source=str(bad), on_error="skip")], Dropped(), WHERE))
    error = "not JSON: Expecting property name enclosed in double quotes (column 2)"
    assert str(caught.value) == (
        f"stage.sft.data: no record in {bad}; rows left out: 2 as bad_row ({bad}:1: {error}); look at the source"
    )


# ------------------------------------------------------------------------------------------------------- part and limit


def test_disjoint_parts_cover_everything_once_and_split_no_conversation(tmp_path: Path):
    rows = [{"prompt": f"question {i % 70}", "completion": f"answer {i}"} for i in range(300)]
    path = write(tmp_path / "rows.jsonl", lines(rows))
    whole, parts = records(path), [records(path, part=part) for part in ("0:20", "20:21", "21:80", "80:100")]
    texts = Counter(str(record) for part in parts for record in part)
    assert texts == Counter(map(str, whole))
    firsts = [{conversation(record)[0]["content"] for record in part} for part in parts]
    assert all(firsts)
    assert sum(map(len, firsts)) == len(set().union(*firsts)) == 70
    assert all([record for record in whole if record in part] == part for part in parts)


def test_limit_counts_what_part_leaves(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", lines([{"prompt": str(i), "completion": "A"} for i in range(100)]))
    assert records(path, part="50:100", limit=7) == records(path, part="50:100")[:7]
    assert len(records(path, limit=1000)) == 100


def test_weights_mix_sources(tmp_path: Path):
    rows = [{"prompt": f"question {i}", "completion": "yes"} for i in range(2000)]
    path = write(tmp_path / "rows.jsonl", lines(rows))
    whole = records(path)
    assert records(path, weight=2) == [record for record in whole for _ in range(2)]
    quarter = records(path, weight=0.25)
    assert len(quarter) == pytest.approx(500, abs=60)
    assert Counter(map(str, records(path, weight=1.25))) == Counter(map(str, whole + quarter))
    assert len(records(path, weight=0.25, part="0:50")) == pytest.approx(250, abs=45)  # independent of parts


@pytest.mark.parametrize("part", ["80:20", "20:20", "0:101"])
def test_part_must_be_a_range(tmp_path: Path, part: str):
    path = write(tmp_path / "rows.jsonl", lines(ROWS))
    assert said(RecipeError, path, part=part) == (
        f"stage.sft.data: part = {part!r} is no range; it is start:end with start < end <= 100"
    )


# ----------------------------------------------------------------------------------------- functions, embedded, the hub

MINE = """
from accord.data.records import Prompt, Text

def both():
    yield Text(text="one")
    yield {"prompt": "Q", "completion": "A"}

def empty():
    return [Text(text="")]

def breaks():
    yield Text(text="one")
    raise KeyError("gone")

def number():
    return 3

def leaves():
    yield Text(text="one")
    raise SystemExit(5)

def odd():
    yield Prompt(prompt=[{"role": "usr", "content": "Hi"}])
"""


def test_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = write(tmp_path / "mine.py", MINE)
    assert records(f"{file}:both") == [Text(text="one"), answered("Q", "A")]
    assert said(DataError, f"{file}:empty") == f"{file}:empty row 1: text is empty; it must hold text; {SKIP}"
    assert said(DataError, f"{file}:breaks") == (
        f"stage.sft.data: {file}:breaks raised after 1 rows: KeyError: 'gone' (line 13); mend the function"
    )
    assert said(DataError, f"{file}:number") == (
        f"stage.sft.data: {file}:number gave int; a data function yields records or rows; yield them, or return a list"
    )
    assert said(RecipeError, f"{file}:bth") == (
        f"stage.sft.data: no function 'bth' in {file}; did you mean 'both'?; known: both, empty, breaks, number, leaves, odd"
    )
    assert said(DataError, f"{file}:leaves") == (
        f"stage.sft.data: {file}:leaves raised after 1 rows: SystemExit: 5 (line 20); mend the function"
    )
    assert said(DataError, f"{file}:odd") == (
        f"{file}:odd row 1: unknown role 'usr'; known: system, user, assistant, tool; {SKIP}"
    )
    broken = write(tmp_path / "broken.py", "import no_such_package_of_ours\n")
    assert said(RecipeError, f"{broken}:f") == (
        f"stage.sft.data: {broken} does not import: ModuleNotFoundError: No module named 'no_such_package_of_ours' "
        "(line 1); mend the file"
    )


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Embedded data of known content, in the place of the real one."""
    module = ModuleType("accord.demo")
    sources: dict[str, Callable[[], list[Record]]] = {"demo/chats": lambda: [*EXPECTED], "demo/pairs": list}
    monkeypatch.setattr(module, "SOURCES", sources, raising=False)
    monkeypatch.setattr(module, "VERSION", "1", raising=False)
    monkeypatch.setitem(sys.modules, "accord.demo", module)
    return module


def test_embedded(demo: ModuleType, monkeypatch: pytest.MonkeyPatch):
    assert records("accord:demo/chats", limit=2) == EXPECTED[:2]
    assert said(RecipeError, "accord:demo/chat") == (
        "stage.sft.data: no embedded data 'accord:demo/chat'; did you mean 'accord:demo/chats'?; "
        "known: accord:demo/chats, accord:demo/pairs"
    )
    first = fingerprint(Source(source="accord:demo/chats"))
    assert first != fingerprint(Source(source="accord:demo/pairs"))
    monkeypatch.setattr(demo, "VERSION", "2")
    assert first != fingerprint(Source(source="accord:demo/chats"))


def test_a_folder_of_data_files_is_read_as_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    write(tmp_path / "org" / "name" / "train.jsonl", lines(ROWS))
    monkeypatch.chdir(tmp_path)
    assert records("org/name") == records(tmp_path / "org" / "name") == EXPECTED
    assert records("org/name", limit=1) == EXPECTED[:1]
    assert said(DataError, "org/name", split="test") == (
        "stage.sft.data: org/name cannot be read: Bad split: test. Available splits: ['train']; "
        "check the name, `split` and `config`"
    )
    assert said(DataError, "org/name", map={"prompt": "q"}).startswith("org/name row 1: no column 'q'")
    first = fingerprint(Source(source="org/name"))
    write(tmp_path / "org" / "name" / "train.jsonl", lines(ROWS[:2]))
    assert fingerprint(Source(source="org/name")) != first


def test_a_folder_may_be_called_like_a_file(tmp_path: Path):
    """As tools name their output that write a file for each of their workers."""
    folder = tmp_path / "rows.jsonl"
    folder.mkdir()
    write(folder / "part-0.jsonl", lines(ROWS))
    assert records(folder) == EXPECTED


def test_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from datasets import config

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    text = said(EngineError, "org/no-such-name")
    assert text.startswith("stage.sft.data: org/no-such-name cannot be reached: ")
    assert text.endswith("; connect to the network, or give a file")
    unknown = fingerprint(Source(source="org/no-such-name"))
    refs = tmp_path / "datasets--org--no-such-name" / "refs"
    refs.mkdir(parents=True)
    write(refs / "main", "0123abcd")
    assert fingerprint(Source(source="org/no-such-name")) != unknown


def test_the_hub_is_read_at_the_commit_of_the_fingerprint_and_a_torn_stream_is_named(monkeypatch: pytest.MonkeyPatch):
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    commits = iter(["first", "second"])

    def info(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(sha=next(commits))

    def stream(*_: object, revision: str, **__: object) -> Iterator[dict[str, str]]:
        yield {"prompt": "Which commit?", "completion": revision}
        raise HTTPError("the connection was reset")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", stream)
    before = fingerprint(Source(source="org/torn"))
    assert records("org/torn", limit=1) == [answered("Which commit?", "first")]
    assert fingerprint(Source(source="org/torn")) == before
    assert said(EngineError, "org/torn") == (
        "stage.sft.data: org/torn cannot be reached: the connection was reset; connect to the network, or give a file"
    )


# --------------------------------------------------------------------------------------------------------- fingerprints


def test_a_fingerprint_changes_with_contents_and_options_only(tmp_path: Path):
    path, copy = write(tmp_path / "a.jsonl", lines(ROWS)), write(tmp_path / "b.jsonl", lines(ROWS))
    first = fingerprint(Source(source=str(path)))
    assert len(bytes.fromhex(first)) == 32
    assert first == fingerprint(Source(source=str(copy)))
    options: list[dict[str, object]] = [
        {"limit": 1}, {"part": "0:50"}, {"on_error": "skip"}, {"map": {"prompt": "x"}}, {"split": "x"}, {"config": "x"}
    ]  # fmt: skip
    others = {fingerprint(Source.model_validate({"source": str(path), **option})) for option in options}
    assert len(others | {first}) == len(options) + 1
    write(copy, lines(ROWS[:2]))
    assert first != fingerprint(Source(source=str(copy)))


def test_a_fingerprint_of_a_function_is_its_file_and_name(tmp_path: Path):
    file = write(tmp_path / "mine.py", MINE)
    first = fingerprint(Source(source=f"{file}:both"))
    assert first != fingerprint(Source(source=f"{file}:empty"))
    write(file, MINE + "# more\n")
    assert first != fingerprint(Source(source=f"{file}:both"))
