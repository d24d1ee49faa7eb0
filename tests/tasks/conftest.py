"""Tokenizers that every task must get along with."""

from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from circuitfind.models.loading import load_vocabulary as load_own_vocabulary
from circuitfind.models.pretrained import PRETRAINED
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo import zoo_path
from circuitfind.models.zoo.training import word_tokenizer
from circuitfind.tasks.corpus import vocabulary_words

SHARED = Path(__file__).parents[3] / "shared"
SHARED_TOKENIZERS = {
    "gpt2": (SHARED / "tokenizers" / "gpt2", None),
    "pythia": (SHARED / "tokenizers" / "pythia", None),
    "stories260k": (SHARED / "models" / "stories260k", 1),
}


def load_vocabulary(name: str) -> Vocabulary:
    if name == "zoo":
        return Vocabulary(word_tokenizer(vocabulary_words()))
    if name == "digits":
        return Vocabulary(_with_digits_apart(load_vocabulary("gpt2").tokenizer))
    if name == "smollm2":
        return _smollm2()
    if name in NUMBERS_APART:
        return _trained(name)
    path, bos = SHARED_TOKENIZERS.get(name) or (zoo_path(name), None)
    if not path.exists():
        pytest.skip(f"{path} is absent: the shared tokenizers are not part of the repository")
    return Vocabulary(AutoTokenizer.from_pretrained(path), bos)


NUMBERS_APART = {"llama3-like": r"\p{N}{1,3}", "qwen-like": r"\p{N}"}
"""How the tokenizers of Llama 3 and of Qwen 2 cut numbers; the space before a number is apart."""


def _trained(name: str) -> Vocabulary:
    """Train a byte-level tokenizer on the words of tasks, with a modern rule of splitting."""
    rule = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + NUMBERS_APART[name]
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )  # fmt: skip
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = Sequence(
        [Split(Regex(rule), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=20_000,
        special_tokens=special,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [*vocabulary_words(), *map(str, range(1000)), *(chr(65 + n) for n in range(26))]
    inner.train_from_iterator([f" {word}" for word in words for _ in range(3)] + words, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<|begin|>")
    return Vocabulary(tokenizer, tokenizer.bos_token_id if name == "llama3-like" else None)


def _smollm2() -> Vocabulary:
    """The tokenizer of SmolLM2, which `circuitfind models get smollm2` brings."""
    path = PRETRAINED.get("smollm2").path
    if not path.is_file():
        pytest.skip("smollm2 is not here; run `circuitfind models get smollm2`")
    return load_own_vocabulary("smollm2")


def _with_digits_apart(tokenizer):
    """Write each digit as a token of its own, as the tokenizers of Llama and SmolLM2 do."""
    inner = tokenizer.backend_tokenizer
    inner.pre_tokenizer = Sequence([Digits(individual_digits=True), inner.pre_tokenizer])
    return tokenizer


@pytest.fixture(scope="session", params=["ioi-small", *SHARED_TOKENIZERS])
def vocabulary(request) -> Vocabulary:
    """Every tokenizer in turn."""
    return load_vocabulary(request.param)


@pytest.fixture(scope="session", params=["ioi-small", "gpt2", "pythia"])
def word_vocabulary(request) -> Vocabulary:
    """The tokenizers that keep names whole."""
    return load_vocabulary(request.param)


@pytest.fixture(scope="session")
def zoo_vocabulary() -> Vocabulary:
    return load_vocabulary("zoo")


@pytest.fixture(scope="session")
def stories_vocabulary() -> Vocabulary:
    return load_vocabulary("stories260k")
