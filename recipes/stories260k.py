"""Convert the llama2.c checkpoint "stories260K" into a Hugging Face model folder.

Usage: python recipes/stories260k.py SOURCE_DIR OUT_DIR

SOURCE_DIR holds stories260K.bin (llama2.c v0 export) and tok512.bin (its tokenizer). OUT_DIR is
what plain `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` open.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import sys
from math import prod
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHECKPOINT, TOKENIZER = "stories260K.bin", "tok512.bin"
SPECIAL = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2
FIRST_LEARNED = len(SPECIAL) + 256  # the 256 byte tokens <0x00>..<0xFF> come before learned pieces
HEADER = struct.Struct("<7i")  # dim, hidden, layers, heads, kv heads, vocab, seq
WRITTEN = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


class RecipeError(Exception):
    """A problem the user can fix, worded `where: what is wrong; how to fix`."""


def read_source(path: Path) -> bytes:
    """Read one source file, or say which file is missing and where it should be."""
    if not path.is_file():
        wanted = f"pass the folder that holds {CHECKPOINT} and {TOKENIZER} as SOURCE_DIR"
        raise RecipeError(f"{path}: source file is missing; {wanted}")
    return path.read_bytes()


def parse_config(data: bytes, path: Path) -> LlamaConfig:
    """Turn the seven-integer v0 header into a Llama configuration."""
    header = HEADER.unpack_from(data) if len(data) >= HEADER.size else (0,) * 7
    dim, hidden, layers, heads, kv_heads, vocab, seq = header
    if min(header[:5]) <= 0 or dim % heads or heads % kv_heads:
        raise RecipeError(f"{path}: not a llama2.c v0 checkpoint; fetch the file again")
    if vocab <= 0:  # v0 marks an untied classifier by a negative vocabulary size
        raise RecipeError(f"{path}: output layer is not tied; use a checkpoint with a shared one")
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=seq,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )


def half_split(weight: Tensor, heads: int) -> Tensor:
    """Reorder query or key rows from interleaved rotary pairs to the two halves HF rotates."""
    rows, columns = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)


def parse_weights(data: bytes, config: LlamaConfig, path: Path) -> dict[str, Tensor]:
    """Cut the float block of a v0 checkpoint into the tensors of a HF Llama."""
    dim, hidden, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads or 1
    head_size, seq = dim // heads, config.max_position_embeddings
    kv_dim = head_size * kv_heads
    block, query, key = "model.layers.{}.", "self_attn.q_proj.weight", "self_attn.k_proj.weight"
    shapes: list[tuple[str, tuple[int, ...]]] = [  # in file order, one entry for all layers
        ("model.embed_tokens.weight", (config.vocab_size, dim)),
        (block + "input_layernorm.weight", (layers, dim)),
        (block + query, (layers, dim, dim)),
        (block + key, (layers, kv_dim, dim)),
        (block + "self_attn.v_proj.weight", (layers, kv_dim, dim)),
        (block + "self_attn.o_proj.weight", (layers, dim, dim)),
        (block + "post_attention_layernorm.weight", (layers, dim)),
        (block + "mlp.gate_proj.weight", (layers, hidden, dim)),
        (block + "mlp.down_proj.weight", (layers, dim, hidden)),
        (block + "mlp.up_proj.weight", (layers, hidden, dim)),
        ("model.norm.weight", (dim,)),
    ]
    # The file ends with rotary cosines and sines, which HF computes itself.
    tables = seq * head_size
    expected = HEADER.size + 4 * (sum(prod(shape) for _, shape in shapes) + tables)
    if len(data) != expected:
        wrong = f"{len(data)} bytes where its header asks for {expected}"
        raise RecipeError(f"{path}: {wrong}; fetch the file again")
    # A copy, because torch warns about tensors over read-only memory.
    floats = torch.frombuffer(bytearray(data), dtype=torch.float32, offset=HEADER.size)
    rotated = {block + query: heads, block + key: kv_heads}
    tensors: dict[str, Tensor] = {}
    start = 0
    for name, shape in shapes:
        whole = floats[start : start + prod(shape)].view(shape)
        start += prod(shape)
        for layer, weight in enumerate(whole if name.startswith(block) else [whole]):
            ready = half_split(weight, rotated[name]) if name in rotated else weight
            tensors[name.format(layer)] = ready
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


def parse_pieces(data: bytes, size: int, path: Path) -> list[tuple[str, float]]:
    """Read the pieces of a llama2.c tokenizer file with their scores, in id order."""
    pieces: list[tuple[str, float]] = []
    offset = 4  # the longest piece's length, which only a C reader needs
    try:
        for _ in range(size):
            score, length = struct.unpack_from("<fi", data, offset)
            offset += 8 + length
            # llama2.c stores the space that sentencepiece writes as U+2581.
            pieces.append((data[offset - length : offset].decode().replace(" ", "▁"), score))
    except (struct.error, UnicodeDecodeError):
        offset = -1
    if offset != len(data):
        raise RecipeError(f"{path}: does not hold exactly {size} pieces; fetch the file again")
    # The file spells the control tokens with newlines around them, for printing.
    return [(name, 0.0) for name in SPECIAL] + pieces[len(SPECIAL) :]


def derive_merges(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """List every split of a learned piece into two learned pieces, best score first."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces) if i >= FIRST_LEARNED}
    splits = [
        (-pieces[i][1], ids[piece[:cut]], ids[piece[cut:]])
        for piece, i in ids.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    return [(pieces[left][0], pieces[right][0]) for _, left, right in sorted(splits)]


def build_tokenizer(pieces: list[tuple[str, float]], max_length: int) -> PreTrainedTokenizerFast:
    """Assemble the fast tokenizer that behaves like the sentencepiece model of the checkpoint."""
    unk, bos, eos = SPECIAL
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = derive_merges(pieces)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=unk, byte_fallback=True))
    # "first": text after a special token must not get the dummy leading space.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    spaces, prefix = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    decode = [spaces, decoders.ByteFallback(), decoders.Fuse(), prefix]
    tokenizer.decoder = decoders.Sequence(decode)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocab[bos])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unk,
        bos_token=bos,
        eos_token=eos,
        model_max_length=max_length,
        # Llama takes no token_type_ids, which fast tokenizers return unless told otherwise.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def convert(source: Path, out: Path) -> bool:
    """Write the model folder; False means a complete one was there already."""
    if out.is_dir() and all((out / name).is_file() for name in WRITTEN):
        return False
    if out.exists():
        raise RecipeError(f"{out}: exists but is not a complete model folder; remove or rename it")
    checkpoint = read_source(source / CHECKPOINT)
    tokens = read_source(source / TOKENIZER)
    config = parse_config(checkpoint, source / CHECKPOINT)
    weights = parse_weights(checkpoint, config, source / CHECKPOINT)
    pieces = parse_pieces(tokens, config.vocab_size, source / TOKENIZER)

    model = LlamaForCausalLM(config)
    model.load_state_dict(weights)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    # Renamed only when whole, so an interrupted run never leaves something that looks complete.
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        build_tokenizer(pieces, config.max_position_embeddings).save_pretrained(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def main() -> int:
    """Run the conversion from the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, metavar="SOURCE_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    args = parser.parse_args()
    try:
        written = convert(args.source, args.out)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: written" if written else f"{args.out}: already complete, left as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main())
