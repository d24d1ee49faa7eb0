"""A task, a metric and a method, as a package adds them to circuitfind.

After `pip install ./examples/plugin` every command knows them:

    circuitfind discover noun --metric confidence --method loudest --edges 200 --power 2
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

import circuitfind as cf
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.scored import Scored
from circuitfind.progress import Checkpoint, State

NOUNS = (("girl", "boy"), ("sister", "brother"), ("woman", "man"))
PLACES = ("park", "store", "school", "garden")


def write(vocabulary: cf.Vocabulary, n: int, seed: int) -> list[cf.Pair]:
    """Write n pairs, those about women and about men in turn."""
    rng = random.Random(seed)
    nouns = [couple for couple in NOUNS if len(vocabulary.single_words(couple)) == 2]
    if not nouns:
        raise cf.CircuitfindError("the task 'noun' needs nouns that the tokenizer keeps whole")
    she, he = vocabulary.answer("She"), vocabulary.answer("He")
    pairs = []
    for row in range(n):
        couple, place = rng.choice(nouns), rng.choice(PLACES)
        woman, man = (vocabulary.encode(f"One day, a {x} went to the {place}.") for x in couple)
        clean, corrupted = (woman, man) if row % 2 == 0 else (man, woman)
        right, wrong = (she, he) if row % 2 == 0 else (he, she)
        end = {"end": len(clean) - 1}
        pairs.append(cf.Pair(clean, corrupted, [[right]], [[wrong]], positions=end))
    return pairs


def confidence(logits: torch.Tensor, prompts: cf.PromptPairs, full: torch.Tensor) -> torch.Tensor:
    """Return the probability of the first right answer, for each prompt."""
    probability = logits.softmax(-1).gather(-1, prompts.answers[:, :, :1])
    return probability[:, 0, 0]


@dataclass(frozen=True, kw_only=True)
class LoudestOptions:
    """Settings: with a larger power, a few prompts with large changes count for more."""

    power: float = field(default=1.0)

    def __post_init__(self) -> None:
        if not 0 < self.power <= 10:
            raise cf.CircuitfindError(f"power is {self.power}; give a number above 0, at most 10")


class Loudest(Scored):
    """Scores each edge by how much what its writer writes differs between the two prompts."""

    name = "loudest"
    summary = "keep the edges out of the writers that change most"
    paper = "an example; no paper"
    options = LoudestOptions

    def scoring(
        self, engine: IncrementalEngine, options: LoudestOptions, state: State | None = None
    ) -> Iterator[Checkpoint]:
        """Yield the scores in one step."""
        start = engine.start()
        changes = [engine.gap(start, writer) for writer in range(len(engine.graph.writers))]
        sizes = [change.norm(dim=-1).pow(options.power).mean().double().cpu() for change in changes]
        scores = torch.stack(sizes)[:, None].expand(engine.graph.edge_mask.shape)
        yield Checkpoint(1, 1, "passes", {"scores": scores})


NOUN = cf.Task("noun", "calls a girl she and a boy he", "an example", metric="kl", write=write)
CONFIDENCE = cf.Metric(
    "confidence", "probability", "higher", confidence, needs="right",
    summary="probability of the right answer",
)  # fmt: skip
LOUDEST = Loudest()
