"""Train transcoders for the MLPs of a model.

    python -m circuitfind.tasks.train_transcoders OUT_DIR MODEL [--latents N] [--active N] ...

There is one for each MLP, in a directory of its own under `OUT_DIR/NAME`, in the format of SAELens.
They learn from the text that the model was trained on if it is an embedded model, and from
text that it writes itself, token by token, if it is not. The card holds the recipe, and what was
measured on held-out prompts, or on other text of the model's own.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.fit import measure_fit
from circuitfind.dictionaries.saelens import save_saelens
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.training import Recipe, TranscoderTraining
from circuitfind.files import write_whole
from circuitfind.models.activations import Activations
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import graph_of
from circuitfind.models.loading import load_model
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo import TRAINED
from circuitfind.tasks.train_zoo import corpus_of

READS, WRITES = "mlp.hook_in", "hook_mlp_out"

N_TEXTS = 8000
"""How many texts of its training data an embedded model is shown."""

N_MEASURED = 200
"""How many held-out prompts of each of its tasks are measured on."""

N_WRITTEN, N_TOKENS = 2000, 64
"""How many texts a model writes itself, and how long they are."""

_BATCH = 256
"""How many texts are run at once."""

Texts = list[list[int]]


def texts_of(model: ResidualModel) -> tuple[Texts, Texts, str]:
    """Return the texts to learn from, those to measure on, and what they are."""
    if model.name not in TRAINED or model.vocabulary is None:
        learned, other = written_by(model, N_WRITTEN, 0), written_by(model, N_WRITTEN // 10, 1)
        return learned, other, f"{N_WRITTEN} texts of {N_TOKENS} tokens that the model writes"
    examples = corpus_of(model.name).training_examples(model.vocabulary)
    chosen = [list(each.tokens) for each in random.Random(0).sample(examples, N_TEXTS)]
    held_out = held_out_texts(model.name, model.vocabulary)
    return chosen, held_out, f"{N_TEXTS} texts of its training data"


def held_out_texts(name: str, vocabulary: Vocabulary) -> Texts:
    """Return prompts of all tasks of an embedded model, of which it was trained on none."""
    source = corpus_of(name)
    return [
        row[:length].tolist()
        for task in source.TRAINED
        for prompts in [source.held_out_prompts(task, vocabulary, N_MEASURED, seed=1)]
        for row, length in zip(prompts.clean, prompts.lengths, strict=True)
    ]


def written_by(model: ResidualModel, n: int, seed: int) -> Texts:
    """Return texts that a model writes: each token is drawn as likely as the model takes it to be.

    They begin as its prompts do, or with any token.
    """
    generator = torch.Generator().manual_seed(seed)
    start = None if model.vocabulary is None else model.vocabulary.bos
    first = torch.randint(model.n_tokens, (n, 1), generator=generator)
    tokens = first if start is None else torch.full_like(first, start)
    texts = []
    for some in tokens.split(_BATCH):
        while some.shape[1] < min(N_TOKENS, model.n_positions):
            likely = model.own_last_logits(some, None, 1)[:, 0].float().softmax(-1)
            some = torch.cat([some, likely.multinomial(1, generator=generator)], dim=1)
        texts += some.tolist()
    return texts


def rows_of(
    model: ResidualModel, layer: int, texts: Texts
) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, "row d_model"]]:
    """Return what the MLP of a layer reads and writes, a row for each token of some texts."""
    read, written = [], []
    for batch in _same_length(texts):
        with torch.no_grad():
            run = Activations(model, batch)
        read.append(run.at(layer, READS).flatten(0, 1))
        written.append(run.at(layer, WRITES).flatten(0, 1))
    return torch.cat(read), torch.cat(written)


def _same_length(texts: Texts) -> Iterable[Int[Tensor, "batch pos"]]:
    for _, group in groupby(sorted(texts, key=len), key=len):
        yield from torch.tensor(list(group)).split(_BATCH)


def padded(texts: Texts) -> tuple[Int[Tensor, "batch pos"], Tensor]:
    """Return texts of several lengths as one tensor, and where it is no padding."""
    width = max(map(len, texts))
    tokens = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    return tokens, torch.arange(width) < lengths[:, None]


def train_layer(
    model: ResidualModel, layer: int, texts: Texts, held_out: Texts, recipe: Recipe
) -> tuple[Dictionary, dict[str, Any]]:
    """Train the transcoder of one layer; return it with what was measured."""
    training = TranscoderTraining(*rows_of(model, layer, texts), recipe)
    for step, unexplained in enumerate(training.run(), 1):
        if step % 500 == 0:
            _tell(f"layer {layer}: step {step} of {recipe.steps}: {unexplained:.4f} not explained")
    made = training.trained(f"layer_{layer}", Site(layer, READS, WRITES), model.name)
    fit = measure_fit(model, made, *padded(held_out))
    _tell(f"layer {layer}: {fit}")
    figures = {
        name: None if value is None else round(value, 4) for name, value in asdict(fit).items()
    }
    return made, figures


def train_model(source: str, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Train the transcoders of a model, write them, and return their card."""
    started = time.process_time()
    model = load_model(source)
    texts, held_out, about = texts_of(model)
    folder = out / model.name
    layers = {}
    for layer in [block.layer for block in graph_of(model.shape).blocks if block.kind == "mlp"]:
        made, layers[f"layer_{layer}"] = train_layer(model, layer, texts, held_out, recipe)
        save_saelens(made, folder / f"layer_{layer}")
    card = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "trained_by": f"python -m circuitfind.tasks.train_transcoders OUT_DIR {model.name}",
        "texts": about,
        "recipe": asdict(recipe),
        "measured_on": f"{len(held_out)} texts that were not trained on",
        "layers": layers,
        "cpu_seconds": round(time.process_time() - started),
        "torch": torch.__version__,
    }
    write_whole(folder / "card.json", json.dumps(card, indent=1) + "\n")
    return card


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the transcoders of a model and write them to a directory of its name."""
    usual = Recipe()
    parser = argparse.ArgumentParser(description="Train transcoders for the MLPs of a model.")
    parser.add_argument("out", type=Path, help="directory that they are written to")
    parser.add_argument("model", help="an embedded model's name, or a model's directory")
    parser.add_argument("--latents", type=int, default=usual.n_latents)
    parser.add_argument("--active", type=int, default=usual.n_active, help="latents at a position")
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--seed", type=int, default=usual.seed)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = Recipe(given.latents, given.active, given.steps, seed=given.seed)
    train_model(given.model, recipe, given.out)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
