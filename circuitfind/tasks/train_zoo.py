"""Train the embedded model: `python -m circuitfind.tasks.train_zoo OUT_DIR`.

The training text comes from the tasks' own generators: indirect objects, pronouns, and random words
that repeat after any number of words. The corrupted prompts of `ioi` are read too, continued by
either of the first two names, so the model learns that three different names decide nothing.

One in eight couples of names is held out: no training text has both names. The card's figures for
`ioi` are measured on prompts whose indirect object and subject are such a couple, those of the
other tasks on seeds that were not trained on.
"""

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo.training import Example, Recipe, new_gpt2, train, word_tokenizer
from circuitfind.prompts import Pair, PromptPairs, collate
from circuitfind.tasks import induction, ioi, pronoun
from circuitfind.tasks.words import NAMES, OBJECTS, PLACES, PLAIN

TRAINING_SEED = 10_000_019
"""Seeds that a user is likely to choose give prompts that were not trained on."""

N_EXAMPLES = 100_000
SHARES = {"ioi": 0.6, "pronoun": 0.1, "induction": 0.3}
PERIODS = range(4, 17)


def is_held_out(one: str, other: str) -> bool:
    """Whether no training text may hold both names."""
    return (NAMES.index(one) + NAMES.index(other)) % 8 == 0


def vocabulary_words() -> list[str]:
    """Return every word and punctuation mark that the tasks write."""
    texts = [*ioi.TEMPLATES, *pronoun.TEMPLATES, "a She He"]
    words = re.findall(r"\w+|[^\w\s]+", re.sub(r"{\w+}", " ", " ".join(texts)))
    nouns = [noun for couple in pronoun.NOUNS for noun in couple]
    return [*words, *nouns, *NAMES, *PLACES, *OBJECTS, *PLAIN]


def training_examples(vocabulary: Vocabulary, n: int = N_EXAMPLES) -> list[Example]:
    """Write what the model is trained on, from n pairs of prompts."""
    rng = random.Random(TRAINING_SEED)
    n_of = {name: round(share * n) for name, share in SHARES.items()}
    words = induction.ordinary_words(vocabulary, rng)
    return [
        *_ioi_examples(vocabulary, rng, n_of["ioi"]),
        *map(_continued, pronoun.write(vocabulary, n_of["pronoun"], TRAINING_SEED)),
        *(
            _continued(induction.repetition(vocabulary, rng, words, rng.choice(PERIODS)))
            for _ in range(n_of["induction"])
        ),
    ]


def held_out_ioi(vocabulary: Vocabulary, n: int, seed: int) -> PromptPairs:
    """Write up to n pairs whose indirect object and subject never met in training."""
    pairs = ioi.write(vocabulary, 10 * n, seed)
    names = _name_of_token(vocabulary)
    held_out = [
        pair
        for pair in pairs
        if is_held_out(names[pair.answers[0][0]], names[pair.wrong_answers[0][0]])
    ]
    return collate(held_out[:n])


def _ioi_examples(vocabulary: Vocabulary, rng: random.Random, n: int) -> Iterator[Example]:
    names = _name_of_token(vocabulary)
    for pair in ioi.write(vocabulary, n, TRAINING_SEED):
        first, second = (pair.corrupted[pair.positions[slot]] for slot in ("IO", "S1"))
        undecided = Example([*pair.corrupted, rng.choice([first, second])], [len(pair.corrupted)])
        for example in (_continued(pair), undecided):
            met = {names[token] for token in example.tokens if token in names}
            if not any(is_held_out(one, other) for one, other in combinations(met, 2)):
                yield example


def _name_of_token(vocabulary: Vocabulary) -> dict[int, str]:
    return {vocabulary.answer(name): name for name in NAMES}


def _continued(pair: Pair) -> Example:
    """Append the last answer; the tokens after the pair's steps are what the text is about."""
    steps = pair.steps or [len(pair.clean) - 1]
    return Example([*pair.clean, pair.answers[-1][0]], [step + 1 for step in steps])


def measure(model: torch.nn.Module, vocabulary: Vocabulary) -> dict[str, float]:
    """Measure the model on prompts that it was not trained on."""
    held_out = held_out_ioi(vocabulary, 1000, seed=1)
    difference, first = _judged(model, held_out)
    undecided, _ = _judged(model, held_out, corrupted=True)
    figures = {
        "ioi_prompts": len(held_out),
        "ioi_prefers_io": (difference > 0).float().mean().item(),
        "ioi_io_comes_first": first.float().mean().item(),
        "ioi_logit_difference": difference.mean().item(),
        "ioi_logit_difference_corrupted": undecided.mean().item(),
    }
    for task in (pronoun.PRONOUN, induction.INDUCTION):
        difference, first = _judged(model, task.write_prompts(vocabulary, 1000, seed=1))
        figures[f"{task.name}_prefers_answer"] = (difference > 0).float().mean().item()
        figures[f"{task.name}_answer_comes_first"] = first.float().mean().item()
    return {name: round(value, 4) for name, value in figures.items()}


@torch.no_grad()
def _judged(
    model: torch.nn.Module, prompts: PromptPairs, *, corrupted: bool = False
) -> tuple[Float[Tensor, "batch step right"], Bool[Tensor, "batch step right"]]:
    """Return the logit difference at each step, and whether the answer has the largest logit."""
    logits = prompts.at_steps(model(prompts.corrupted if corrupted else prompts.clean).logits)
    right, wrong = (logits.gather(-1, t) for t in (prompts.answers, prompts.wrong_answers))
    return right - wrong, logits.argmax(-1, keepdim=True) == prompts.answers


def main() -> None:
    """Train the model and write it, with tokenizer and card, to a directory."""
    parser = argparse.ArgumentParser(description="Train the embedded model ioi-small.")
    parser.add_argument("out", type=Path, help="directory that the model is written to")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    recipe, started = Recipe(), time.monotonic()
    tokenizer = word_tokenizer(vocabulary_words())
    vocabulary = Vocabulary(tokenizer)
    model = new_gpt2(len(tokenizer), recipe)
    examples = training_examples(vocabulary)
    print(f"{len(examples)} examples, {len(tokenizer)} tokens", file=sys.stderr)
    for step, loss in enumerate(train(model, examples, recipe), 1):
        if step % 100 == 0:
            print(f"step {step} of {recipe.steps}: {loss:.3f} nats", file=sys.stderr, flush=True)
    card = {
        "summary": "GPT-2 architecture with one token a word, trained on the tasks' own text",
        "trained_by": "python -m circuitfind.tasks.train_zoo",
        "recipe": asdict(recipe),
        "examples": len(examples),
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "seconds": round(time.monotonic() - started),
        "measured": measure(model, vocabulary),
        "torch": torch.__version__,
    }
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["measured"], indent=2))


if __name__ == "__main__":
    main()
