"""Exported models: the same answers in plain transformers, and integers as compressed-tensors reads them."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import unpack_from_int32
from test_lora import folder_of, logits, shake
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from accord.cli.commands import export_model
from accord.data.tokenizer import load_tokenizer
from accord.errors import AccordError, EngineError
from accord.model import load_policy, load_scorer, save_model
from accord.recipe import Lora
from accord.run import read_json
from accord.stages.export import pack, rounded

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = load_tokenizer(base, "test")
    policy = load_policy(base, tokenizer, "test", train=Lora(r=4))
    shake(policy)
    folder = tmp_path_factory.mktemp("adapter") / "model"
    save_model(policy, tokenizer, folder)
    return folder


def test_a_merged_policy_is_the_adapter_with_its_base(adapter: Path, tmp_path: Path):
    export_model(str(adapter), tmp_path / "out", merge=True, int8=False, data=None)
    tokenizer = load_tokenizer(adapter, "test")
    policy = load_policy(adapter, tokenizer, "test", train=Lora(r=4))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(policy), atol=1e-5)
    assert load_tokenizer(tmp_path / "out", "test").chat_template == tokenizer.chat_template


def test_a_merged_reward_model_keeps_its_head(base: Path, tmp_path: Path):
    tokenizer = load_tokenizer(base, "test")
    scorer = load_scorer(base, tokenizer, "test", seed=1, train=Lora(r=4))
    shake(scorer)
    scorer.config.reward_std = 3.0
    save_model(scorer, tokenizer, tmp_path / "stage" / "model")
    export_model(str(tmp_path / "stage"), tmp_path / "out", merge=True, int8=False, data=None)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(plain), logits(scorer), atol=1e-5)
    assert read_json(tmp_path / "out" / "config.json")["reward_std"] == 3.0


def test_weights_are_rounded_to_the_nearest_of_255_steps_of_each_output():
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 6)[:, None]
    integers, scale = rounded(weight)
    assert integers.abs().amax(1).tolist() == [127] * 6
    assert bool(((integers * scale - weight).abs() <= scale / 2 * 1.0001).all())
    assert torch.equal(rounded(torch.zeros(2, 4))[0], torch.zeros(2, 4, dtype=torch.int8))
    assert torch.equal(unpack_from_int32(pack(integers), 8, torch.Size(integers.shape)), integers)


def test_integers_answer_in_plain_transformers(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "the cat", "completion": "sat on the mat"}\n' * 4)
    export_model(str(adapter), tmp_path / "out", merge=False, int8=True, data=str(rows))
    said = capsys.readouterr().out.split()  # perplexity x before, y after
    before, after = float(said[1]), float(said[3])
    assert before != after
    assert after == pytest.approx(before, rel=0.02)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    whole = load_policy(adapter, load_tokenizer(adapter, "test"), "test")
    for name, layer in whole.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            integers, scale = rounded(layer.weight.detach())
            with torch.no_grad():
                layer.weight.copy_(integers * scale)
    assert torch.allclose(logits(plain), logits(whole), atol=1e-5)
    stored = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= stored


@pytest.mark.parametrize(
    ("merge", "int8", "data", "said"),
    [
        (False, False, None, "export: say what to write; --merge for a whole model, or --int8"),
        (True, True, None, "export: say what to write"),
        (True, False, "accord:demo/choose", "--data: belongs to --int8"),
        (False, True, "absent.jsonl", "--data: "),
    ],
)
def test_mistakes_are_told_before_any_work(
    adapter: Path, tmp_path: Path, merge: bool, int8: bool, data: str | None, said: str
):
    with pytest.raises(AccordError, match="^" + said):
        export_model(str(adapter), tmp_path / "out", merge=merge, int8=int8, data=data)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(adapter: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(AccordError, match="is there already"):
        export_model(str(adapter), tmp_path, merge=True, int8=False, data=None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_policy_without_linear_layers_has_nothing_to_round(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    """GPT-2 keeps its weights in layers of another kind."""
    gpt2 = folder_of("gpt2", tmp_path, tokenizer)
    with pytest.raises(AccordError) as caught:
        export_model(str(gpt2), tmp_path / "out", merge=False, int8=True, data=None)
    assert str(caught.value) == "export: gpt2 has no linear layers of its own; leave --int8 out"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("int8", [False, True])
def test_a_disk_that_takes_no_more(base: Path, tmp_path: Path, int8: bool):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EngineError) as caught:
            export_model(str(base), tmp_path / "out", merge=not int8, int8=int8, data=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value).startswith(f"{tmp_path}/out: cannot be written (")
    assert str(caught.value).endswith("); free some space, or write to another folder")
    assert list(tmp_path.iterdir()) == []
