"""What the benchmarks run on: a random model of a given shape, random prompts, a circuit like IOI.

Costs do not depend on what the weights are, so random ones will do. A search's cost does depend on
which edges it keeps, so the decisions are fixed in advance: the paths that Wang et al. 2022 found
for indirect object identification in GPT-2 small, by role, and a few MLPs.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import circuitfind as cf
from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.acdc import search_from
from circuitfind.methods.base import Progress
from circuitfind.methods.order import visits
from circuitfind.problem import Problem
from circuitfind.prompts import Pair, PromptPairs, collate
from circuitfind.shape import ModelShape

FIRST_DIFFERENCE = 4
"""Position from which on clean and corrupted prompts differ."""

RIGHT, WRONG = 5, 6
"""The answers whose logits are compared."""

_ROLES = {
    "embed": ["embed"],
    "m0": ["m0"],
    "movers": ["a9.h9", "a10.h0", "a9.h6", "a10.h10", "a10.h6", "a10.h2", "a10.h1", "a11.h2"]
    + ["a9.h7", "a9.h0", "a11.h9", "a10.h7", "a11.h10"],
    "inhibitors": ["a7.h3", "a7.h9", "a8.h6", "a8.h10"],
    "inducers": ["a5.h5", "a5.h8", "a5.h9", "a6.h9"],
    "duplicates": ["a0.h1", "a0.h10", "a3.h0"],
    "previous": ["a2.h2", "a4.h11"],
    "late": ["m9", "m10", "m11"],
    "logits": ["logits"],
}
_PATHS = [
    *((source, role, "qkv") for source in ("embed", "m0") for role in ("previous", "duplicates")),
    *((source, "inducers", "qkv") for source in ("embed", "m0")),
    *((source, "inhibitors", "q") for source in ("embed", "m0")),
    *((source, "movers", "kv") for source in ("embed", "m0")),
    ("previous", "inducers", "kv"),
    ("inducers", "inhibitors", "kv"),
    ("duplicates", "inhibitors", "kv"),
    ("inhibitors", "movers", "q"),
    ("movers", "logits", ""),
    ("late", "logits", ""),
    ("movers", "late", ""),
    ("embed", "m0", ""),
]


@dataclass(frozen=True)
class Size:
    """A model and its prompts in numbers; by default GPT-2 small with 16 prompts of 16 tokens.

    Query heads may share key/value heads in a model of Llama's architecture (`n_kv_heads`).
    """

    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int | None = None
    d_model: int = 768
    d_vocab: int = 50257
    n_prompts: int = 16
    n_tokens: int = 16

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


SMOLLM2 = Size(30, 9, 3, 576, 49_152, 16, 19)
"""The shape of SmolLM2-135M, of Llama's architecture."""


def write_setting(folder: Path, size: Size) -> None:
    """Write the weights and the prompts to a directory, for all that take part to read."""
    random_gpt2(size).save_pretrained(folder)
    prompts = {"clean": _tokens(size).tolist(), "corrupted": _tokens(size, corrupted=True).tolist()}
    (folder / "prompts.json").write_text(json.dumps(prompts))


def random_gpt2(size: Size) -> GPT2LMHeadModel:
    """Return a model of GPT-2's architecture with random weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=size.n_layers,
        n_head=size.n_heads,
        n_embd=size.d_model,
        vocab_size=size.d_vocab,
        n_positions=max(64, size.n_tokens),
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(requires_grad=False)


def random_llama(size: Size) -> LlamaForCausalLM:
    """Return a model of Llama's architecture with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.d_model,
        intermediate_size=size.d_model * 8 // 3,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        num_key_value_heads=size.n_kv_heads or size.n_heads,
        vocab_size=size.d_vocab,
        max_position_embeddings=max(64, size.n_tokens),
    )
    return LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)


def random_pairs(size: Size) -> PromptPairs:
    """Return random pairs that differ from the same position on."""
    return _pairs(_tokens(size).tolist(), _tokens(size, corrupted=True).tolist())


def _pairs(clean: list[list[int]], corrupted: list[list[int]]) -> PromptPairs:
    return collate(
        [
            Pair(one, other, answers=[[RIGHT]], wrong_answers=[[WRONG]])
            for one, other in zip(clean, corrupted, strict=True)
        ]
    )


def _tokens(size: Size, *, corrupted: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (size.n_prompts, size.n_tokens)
    clean, other = (torch.randint(0, size.d_vocab, shape, generator=generator) for _ in range(2))
    other[:, :FIRST_DIFFERENCE] = clean[:, :FIRST_DIFFERENCE]
    return other if corrupted else clean


def read_problem(folder: Path, metric: str) -> Problem:
    """Load the setting of a directory."""
    prompts = json.loads((folder / "prompts.json").read_text())
    pairs = _pairs(prompts["clean"], prompts["corrupted"])
    model = cf.load_model(GPT2LMHeadModel.from_pretrained(folder).eval())
    return cf.make_problem(model, pairs, metric=metric)


def ioi_like(shape: ModelShape) -> frozenset[str]:
    """Return the names of the edges to keep, heads moved to the layers that a model has."""
    graph = heads_and_mlps(shape)
    names = {edge.name for edge in graph.edges()}
    wanted = {
        f"{_moved(writer, shape)}->{_moved(reader, shape, port)}"
        for source, target, ports in _PATHS
        for writer in _ROLES[source]
        for reader in _ROLES[target]
        for port in (ports or [""])
    }
    return frozenset(wanted & names)


def fixed_search(engine: cf.IncrementalEngine) -> Iterator[Progress]:
    """Search with the decisions fixed in advance, whatever the effects are."""
    kept = ioi_like(engine.graph.shape)
    plan = visits(engine.graph, "backward-index", seed=0)
    yield from search_from(engine, engine.start(), plan, lambda edge, effect: edge not in kept)


def _moved(component: str, shape: ModelShape, port: str = "") -> str:
    """Move a component of GPT-2 small, or its input, to the same depth of another model."""
    layer, _, head = component[1:].partition(".h")
    if not layer.isdigit():
        return component
    depth = round(int(layer) * (shape.n_layers - 1) / 11)
    if not head:
        return f"m{depth}"
    number = int(head) % shape.n_heads
    if port in ("k", "v") and shape.n_kv_heads < shape.n_heads:
        return f"a{depth}.kv{number * shape.n_kv_heads // shape.n_heads}.{port}"
    return f"a{depth}.h{number}" + (f".{port}" if port else "")
