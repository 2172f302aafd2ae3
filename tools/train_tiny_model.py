"""Train the language model bundled with gpt.local: CPython's own documentation in, one GGUF file out.

The corpus is read from the Python that runs this script, so anyone can train the model again, offline:

    pip install torch tokenizers gguf
    python tools/train_tiny_model.py

It takes about 40 minutes on two cores and needs a C++ compiler, for torch.compile makes a step a third faster.
The corpus depends on the CPython version, and the last bits of the arithmetic on the PyTorch version, the processor
and the threads: the same in all of these, with the same seed and steps, gives the same file.

The model completes text in the manner of the Python documentation. It is a demonstration and knows nothing else.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import platform
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

END_OF_TEXT = "<|endoftext|>"
MIN_DOCSTRING_CHARACTERS = 120
NOT_CORPUS = {"test", "tests", "idlelib", "lib2to3", "site-packages"}

VOCABULARY = 2048
CONTEXT = 256
LAYERS = 4
WIDTH = 192
HEADS = 6
HEAD_WIDTH = WIDTH // HEADS
HIDDEN = 512
NORM_EPSILON = 1e-5
ROTARY_BASE = 10_000.0

BATCH = 16
PEAK_RATE = 2e-3
FINAL_RATE_FRACTION = 0.05
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.1
GRADIENT_NORM = 1.0
STEPS_PER_REPORT = 50
STEPS_PER_EXPORT = 500

BUNDLED = Path(__file__).resolve().parent.parent / "src" / "gpt" / "local" / "models" / "tiny.gguf"


def docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions, indentation removed."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
            yield docstring


def read_corpus() -> list[str]:
    """Collect the language reference's topics and the standard library's longer docstrings, each once."""
    library = Path(sysconfig.get_path("stdlib"))
    documents = [topics[name] for name in sorted(topics)]
    for path in sorted(library.rglob("*.py")):
        if NOT_CORPUS.isdisjoint(path.relative_to(library).parts):
            documents += docstrings(path.read_text(encoding="utf-8"))
    return list(dict.fromkeys(text for text in documents if len(text) > MIN_DOCSTRING_CHARACTERS))


def train_tokenizer(corpus: list[str]) -> Tokenizer:
    """Learn a byte-level BPE in the manner of GPT-2; END_OF_TEXT is token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, corpus: list[str]) -> Tensor:
    """Return the whole corpus as one row of token ids, END_OF_TEXT after each document."""
    ids = [token for encoding in tokenizer.encode_batch(corpus) for token in [*encoding.ids, 0]]
    return torch.tensor(ids, dtype=torch.int64)


class Block(nn.Module):  # type: ignore[misc, unused-ignore]
    """One Llama layer: rotary attention and SwiGLU, each behind an RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(WIDTH, NORM_EPSILON)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.hidden_norm = nn.RMSNorm(WIDTH, NORM_EPSILON)
        self.gate = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.attention_norm(x)
        query = rotate(split_heads(self.query(y)), cos, sin)
        key = rotate(split_heads(self.key(y)), cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, split_heads(self.value(y)), is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        y = self.hidden_norm(x)
        down: Tensor = self.down(F.silu(self.gate(y)) * self.up(y))
        return x + down


class Llama(nn.Module):  # type: ignore[misc, unused-ignore]
    """The whole model; the embedding is also the output layer."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, NORM_EPSILON)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)
        frequencies = ROTARY_BASE ** -(torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
        angles = torch.outer(torch.arange(CONTEXT), frequencies)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embedding.weight)


def split_heads(x: Tensor) -> Tensor:
    """(batch, time, WIDTH) to (batch, HEADS, time, HEAD_WIDTH)."""
    return x.view(*x.shape[:2], HEADS, HEAD_WIDTH).transpose(1, 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each adjacent pair by its position's angle: llama.cpp's layout, so the export permutes nothing."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a fraction of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return PEAK_RATE * (FINAL_RATE_FRACTION + (1 - FINAL_RATE_FRACTION) * cosine)


def train(model: Llama, ids: Tensor, steps: int) -> Iterator[tuple[int, float]]:
    """Train on random windows of the corpus; yield each step's number, from 1, and its loss."""
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    window = torch.arange(CONTEXT + 1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batch = ids[torch.randint(len(ids) - CONTEXT, (BATCH, 1)) + window]
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        yield step + 1, loss.item()


def gguf_tensors(model: Llama) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under llama.cpp's names; without an output.weight it ties the embedding."""
    yield "token_embd.weight", model.embedding.weight
    yield "output_norm.weight", model.norm.weight
    names = {
        "attention_norm": "attn_norm",
        "query": "attn_q",
        "key": "attn_k",
        "value": "attn_v",
        "output": "attn_output",
        "hidden_norm": "ffn_norm",
        "gate": "ffn_gate",
        "up": "ffn_up",
        "down": "ffn_down",
    }
    for index, block in enumerate(model.blocks):
        for ours, theirs in names.items():
            yield f"blk.{index}.{theirs}.weight", block.get_parameter(f"{ours}.weight")


def export(model: Llama, tokenizer: Tokenizer, description: str, path: Path) -> None:
    """Write the model for llama.cpp: matrices as Q8_0, vectors as float32; the file appears whole or not at all."""
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name("gpt-sdk tiny")
    writer.add_description(description)
    writer.add_license("PSF-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(ROTARY_BASE)
    add_tokenizer(writer, tokenizer)
    for name, weight in gguf_tensors(model):
        array = weight.detach().float().numpy()
        if array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Add the vocabulary and merges; no token is put before a prompt."""
    ids = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(ids, key=ids.__getitem__))
    writer.add_token_types([control] + [normal] * (len(ids) - 1))
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def main() -> None:
    """Train, reporting to stdout and exporting as we go, so that stopping early leaves a usable file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    options.out.parent.mkdir(parents=True, exist_ok=True)

    python = platform.python_version()
    corpus = read_corpus()
    tokenizer = train_tokenizer(corpus)
    ids = encode(tokenizer, corpus)
    model = Llama()
    model.compile()
    digest = hashlib.sha256("\0".join(corpus).encode()).hexdigest()
    characters, weights = sum(map(len, corpus)), sum(weight.numel() for weight in model.parameters())
    print(f"CPython {python}, PyTorch {torch.__version__}, seed {options.seed}, {options.threads} threads")
    print(f"corpus: {len(corpus)} documents, {characters} characters, {len(ids)} tokens, sha256 {digest}")
    print(f"model: {weights} parameters", flush=True)

    begin, losses = time.monotonic(), list[float]()
    for step, loss in train(model, ids, options.steps):
        losses.append(loss)
        last = step == options.steps
        if step % STEPS_PER_REPORT == 0 or last:
            recent = losses[-STEPS_PER_REPORT:]
            seconds = time.monotonic() - begin
            print(f"step {step}: loss {sum(recent) / len(recent):.3f}, {seconds:.0f} s", flush=True)
        if step % STEPS_PER_EXPORT == 0 or last:
            description = f"Demonstration: {step} steps on the documentation inside CPython {python}"
            export(model, tokenizer, description, options.out)
    written = options.out.read_bytes()
    print(f"{options.out.name}: {len(written)} bytes, sha256 {hashlib.sha256(written).hexdigest()}")


if __name__ == "__main__":
    main()
