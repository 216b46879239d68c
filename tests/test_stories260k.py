"""The converted stories260K folder against the figures published and computed for it."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY.parent / "shared" / "data" / "stories260k"
Capture = pytest.CaptureFixture[str]
STORY = "nll_on_first_story_of_tinystories_sample"

needs_source = pytest.mark.skipif(
    not SOURCE.is_dir(), reason="../shared/data/stories260k is not beside this repository"
)


def run_recipe(*arguments: Path) -> int:
    """Run the script as the command line does, in this process, and return its exit status."""
    script = REPOSITORY / "recipes" / "stories260k.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(script), run_name="__main__")
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model folder, in a parent folder that did not exist."""
    out = tmp_path_factory.mktemp("stories260k") / "models" / "stories260k"
    assert run_recipe(SOURCE, out) == 0
    return out


@pytest.fixture(scope="session")
def model(folder: Path) -> LlamaForCausalLM:
    """The model as any user would open it."""
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded.eval()


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as any user would open it."""
    loaded = AutoTokenizer.from_pretrained(folder)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


@pytest.fixture(scope="session")
def expected() -> dict[str, object]:
    """The reference figures that come with the checkpoint."""
    return json.loads((SOURCE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def greedy_ids(expected: dict[str, object]) -> list[int]:
    """BOS and the 256 tokens of the published story."""
    ids = expected["greedy_token_ids"]
    assert isinstance(ids, list)
    assert len(ids) == 257
    return ids


@pytest.fixture(scope="session")
def story_ids(expected: dict[str, object]) -> list[int]:
    """A TinyStories story as an independent encoder cut it."""
    story = expected[STORY]
    assert isinstance(story, dict)
    return story["token_ids"]


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str)
    return text


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(tokenizer.encode(text)))


@needs_source
def test_greedy_story_is_the_published_one(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    expected: dict[str, object],
    greedy_ids: list[int],
) -> None:
    start = torch.tensor([[model.config.bos_token_id]])
    out = model.generate(start, max_length=len(greedy_ids), do_sample=False)
    assert isinstance(out, torch.Tensor)
    assert out[0].tolist() == greedy_ids
    assert decode(tokenizer, greedy_ids) == expected["published_greedy_text"]


@needs_source
def test_story_nll_and_first_logits(
    model: LlamaForCausalLM,
    expected: dict[str, object],
    story_ids: list[int],
) -> None:
    with torch.no_grad():
        logits = model(torch.tensor([story_ids])).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(story_ids[1:])).item()
    assert math.isclose(nll, 1.31599, abs_tol=1e-5)
    first = expected["first_step_logits_bos_first8"]
    assert logits[0, :8].tolist() == pytest.approx(first, abs=1e-4)


@needs_source
def test_model_is_tied_float32_with_its_special_ids(model: LlamaForCausalLM) -> None:
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    generation = model.generation_config
    assert generation is not None
    assert (generation.bos_token_id, generation.eos_token_id) == (1, 2)


@needs_source
def test_tokenizer_gives_the_reference_ids(
    tokenizer: PreTrainedTokenizerFast,
    expected: dict[str, object],
    greedy_ids: list[int],
    story_ids: list[int],
) -> None:
    text = expected["greedy_text"]
    assert isinstance(text, str)
    assert tokenizer.encode(text) == greedy_ids
    assert tokenizer.encode(decode(tokenizer, story_ids)) == story_ids


@needs_source
@pytest.mark.parametrize(
    "text",
    [
        "",
        "Once upon a time",
        "two\nlines\n",
        "\n\nHuman: hi\n\nAssistant: hello",
        "double  and   triple spaces, one at the end ",
        "a tab\tand a return\r\n",
        "na\u00efve \u201cquotes\u201d \u6f22\u5b57 \U0001f642\U0001f469\u200d\U0001f680",
        "not bytes: <0x0A>",
    ],
)
def test_text_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer.encode(text)
    assert decode(tokenizer, ids) == text
    assert 0 not in ids  # byte fallback leaves nothing unknown


@needs_source
def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token is None
    assert tokenizer.chat_template is None
    assert tokenizer("a").keys() == {"input_ids", "attention_mask"}
    got = tokens(tokenizer, "User: hi</s>\nUser: x")
    after = got[got.index("</s>") + 1 :]
    assert got[:2] == ["<s>", "▁"]
    assert after == ["<0x0A>", "U", "s", "er", ":", "▁", "x"]
    assert tokens(tokenizer, "a</s>b")[-2:] == ["</s>", "b"]


@needs_source
def test_repeated_and_fresh_runs(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run_recipe(SOURCE, folder) == 0
    assert "already complete" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    assert run_recipe(SOURCE, tmp_path / "again") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@needs_source
@pytest.mark.parametrize("name", ["stories260K.bin", "tok512.bin"])
def test_cut_source_is_refused(tmp_path: Path, capsys: Capture, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in ("stories260K.bin", "tok512.bin"):
        data = (SOURCE / file).read_bytes()
        (source / file).write_bytes(data[:-1] if file == name else data)
    assert run_recipe(source, tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(f"{source / name}: ")
    assert not (tmp_path / "out").exists()


def test_missing_source_is_one_message_and_status_2(tmp_path: Path, capsys: Capture) -> None:
    assert run_recipe(tmp_path / "nowhere", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"{tmp_path / 'nowhere' / 'stories260K.bin'}: source file is missing; pass the folder"
        " that holds stories260K.bin and tok512.bin as SOURCE_DIR\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_incomplete_folder_is_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert run_recipe(tmp_path, tmp_path) == 2
    assert "not a complete model folder; remove or rename it" in capsys.readouterr().err
