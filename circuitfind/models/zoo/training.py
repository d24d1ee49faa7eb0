"""Train a small transformer on lists of tokens.

Ordinary next-token prediction with AdamW and a cosine schedule, over a fixed pool of examples. The
tokens that a task is about are few among many that nothing predicts (which name comes first, which
word is drawn), so their loss counts several times.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from circuitfind.models.zoo.architectures import new_network, predicted

UNKNOWN = "<unk>"


class Example(NamedTuple):
    """A text to learn.

    Attributes:
        tokens: The whole text.
        scored: Positions of the tokens that the text is about.
    """

    tokens: Sequence[int]
    scored: Sequence[int]


@dataclass(frozen=True)
class Recipe:
    """The sizes of a model and how it is trained.

    Attributes:
        emphasis: How often the loss of a scored token counts.
        peak_rate: Learning rate after the warm-up; it falls to zero along a cosine.
        seed: Fixes the first weights and the order of the examples.
    """

    architecture: Literal["gpt2", "llama", "attention-only"] = "gpt2"
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 64
    n_positions: int = 64
    steps: int = 3000
    warm_up: int = 200
    batch: int = 128
    peak_rate: float = 2e-3
    weight_decay: float = 0.05
    emphasis: float = 5.0
    seed: int = 0


def word_tokenizer(words: Sequence[str]) -> Any:
    """Make a Hugging Face tokenizer with a token for each word and punctuation mark.

    Digits are read two by two, so that a year is a century and a year of the century.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([UNKNOWN, *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(r"\d\d"), "isolated")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)


def new_model(n_tokens: int, recipe: Recipe) -> Any:
    """Make an untrained model whose weights depend on the recipe's seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return new_network(
            recipe.architecture,
            n_tokens=n_tokens,
            n_layers=recipe.n_layers,
            n_heads=recipe.n_heads,
            d_model=recipe.d_model,
            n_positions=recipe.n_positions,
        )


def train(model: Any, examples: Sequence[Example], recipe: Recipe) -> Iterator[float]:
    """Train a model in place, yielding the loss of each step in nats."""
    tokens, weights = _padded(examples, recipe.emphasis)
    lengths = torch.tensor([len(example.tokens) for example in examples])
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    model.train()
    for _ in range(recipe.steps):
        rows = torch.randint(len(tokens), (recipe.batch,), generator=generator)
        optimizer.zero_grad()
        loss = _backward(model, tokens, weights, rows[lengths[rows].argsort()], lengths)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss
    model.eval()


def _backward(
    model: Any,
    tokens: Int[Tensor, "example pos"],
    weights: Float[Tensor, "example pos"],
    rows: Int[Tensor, " batch"],
    lengths: Int[Tensor, " example"],
) -> float:
    """Add a batch's gradient, short and long texts apart so that little padding is computed."""
    total = weights[rows, 1:].sum()
    loss = 0.0
    for some in rows.chunk(4):
        width = int(lengths[some].max())
        part = _loss(model, tokens[some, :width], weights[some, :width]) / total
        part.backward()
        loss += part.item()
    return loss


def _padded(
    examples: Sequence[Example], emphasis: float
) -> tuple[Int[Tensor, "example pos"], Float[Tensor, "example pos"]]:
    width = max(len(example.tokens) for example in examples)
    tokens = torch.zeros(len(examples), width, dtype=torch.long)
    weights = torch.zeros(len(examples), width)
    for row, example in enumerate(examples):
        tokens[row, : len(example.tokens)] = torch.tensor(list(example.tokens))
        weights[row, : len(example.tokens)] = 1
        weights[row, list(example.scored)] = emphasis
    return tokens, weights


def _loss(
    model: Any, tokens: Int[Tensor, "batch pos"], weights: Float[Tensor, "batch pos"]
) -> Float[Tensor, ""]:
    logits = predicted(model, tokens)
    each = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (each * weights[:, 1:].flatten()).sum()


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return (1 + math.cos(math.pi * done)) / 2
