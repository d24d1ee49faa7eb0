"""Train embedded models: `python -m circuitfind.tasks.train_zoo OUT_DIR [NAME ...]`.

Each model is written to a directory of its name, with tokenizer and card. The card holds the
recipe, the data, and the accuracy on held-out prompts; a task on which a model
does not reach `CLAIMED` is not listed on its card.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from circuitfind.files import write_whole
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.architectures import predicted, save_network
from circuitfind.models.zoo.training import Example, Recipe, new_model, train, word_tokenizer
from circuitfind.prompts import NO_TOKEN, PromptPairs
from circuitfind.tasks import corpus, corpus_ioi_small

_FOUR = Recipe(n_layers=4, d_model=96, n_positions=48, batch=96, steps=4000)
_TWO = Recipe(n_layers=2, d_model=96, n_positions=48, batch=96, steps=4000)

RECIPES: Mapping[str, Recipe] = {
    "gpt-4l": _FOUR,
    "gpt-4l-b": Recipe(**{**asdict(_FOUR), "seed": 1}),
    "gpt-2l": _TWO,
    "gpt-2l-b": Recipe(**{**asdict(_TWO), "seed": 1}),
    "llama-4l": Recipe(**{**asdict(_FOUR), "architecture": "llama"}),
    "attn-2l": Recipe(**{**asdict(_TWO), "architecture": "attention-only"}),
    "ioi-small": Recipe(),
}
"""The training recipe of each embedded model."""

CLAIMED = 0.95
"""Share of held-out prompts that a model must get right to claim a task."""

N_MEASURED = 500


def corpus_of(name: str) -> Any:
    """Return the module that writes a model's training text."""
    return corpus_ioi_small if name == "ioi-small" else corpus


def measure(
    name: str, model: torch.nn.Module, vocabulary: Vocabulary, seed: int = 1
) -> dict[str, Any]:
    """Measure a model on prompts that it was not trained on.

    Returns:
        By task, `accuracy`, how often a right answer comes first of all tokens, and `preference`,
        how often the mean right answer is above the mean wrong one; `claims`, the tasks of which
        the model gets at least `CLAIMED` right; and how many prompts of each were measured.
    """
    source = corpus_of(name)
    figures = {
        task.name: judged(model, source.held_out_prompts(task, vocabulary, N_MEASURED, seed))
        for task in source.TRAINED
    }
    return {
        "claims": [task for task, (accuracy, _) in figures.items() if accuracy >= CLAIMED],
        "held_out_prompts": N_MEASURED,
        "accuracy": {task: round(accuracy, 4) for task, (accuracy, _) in figures.items()},
        "preference": {task: round(preferred, 4) for task, (_, preferred) in figures.items()},
    }


@torch.no_grad()
def judged(model: torch.nn.Module, prompts: PromptPairs) -> tuple[float, float]:
    """Return how often a right answer comes first, and how often it is above the wrong one."""
    logits = prompts.at_steps(predicted(model, prompts.clean))
    right, wrong = (_mean_of(logits, t) for t in (prompts.answers, prompts.wrong_answers))
    first = (logits.argmax(-1, keepdim=True) == prompts.answers).any(-1)
    return first.double().mean().item(), (right > wrong).double().mean().item()


def _mean_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    given = tokens != NO_TOKEN
    chosen = logits.gather(-1, tokens.clamp(min=0)).masked_fill(~given, 0)
    return chosen.sum(-1) / given.sum(-1)


def train_model(name: str, examples: list[Example], tokenizer: Any, out: Path) -> dict[str, Any]:
    """Train one model, write it, and return its card."""
    recipe, started = RECIPES[name], time.process_time()
    model = new_model(len(tokenizer), recipe)
    for step, loss in enumerate(train(model, examples, recipe), 1):
        if step % 100 == 0:
            _tell(f"{name}: step {step} of {recipe.steps}: {loss:.3f} nats")
    card = {
        "name": name,
        "trained_by": f"python -m circuitfind.tasks.train_zoo OUT_DIR {name}",
        "recipe": asdict(recipe),
        "examples": len(examples),
        "vocabulary": len(tokenizer),
        "parameters": sum(weights.numel() for weights in set(model.parameters())),
        "cpu_seconds": round(time.process_time() - started),
        **measure(name, model, Vocabulary(tokenizer)),
        "torch": torch.__version__,
    }
    folder = out / name
    save_network(model, folder)
    tokenizer.save_pretrained(folder)
    write_whole(folder / "card.json", json.dumps(card, indent=2) + "\n")
    return card


def main() -> None:
    """Train models and write each, with tokenizer and card, to a directory of its name."""
    parser = argparse.ArgumentParser(description="Train the embedded models.")
    parser.add_argument("out", type=Path, help="directory that the models are written to")
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(RECIPES)} [default: all]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for source, names in _by_corpus(given.names or RECIPES):
        tokenizer = word_tokenizer(source.vocabulary_words())
        examples = source.training_examples(Vocabulary(tokenizer))
        _tell(f"{len(examples)} examples, {len(tokenizer)} tokens")
        for name in names:
            card = train_model(name, examples, tokenizer, given.out)
            _tell(json.dumps(card["accuracy"], indent=2))


def _by_corpus(names: Iterable[str]) -> Iterable[tuple[Any, list[str]]]:
    for source in (corpus, corpus_ioi_small):
        if chosen := [name for name in names if corpus_of(name) is source]:
            yield source, chosen


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
