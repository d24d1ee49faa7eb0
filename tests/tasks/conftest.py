"""Tokenizers that every task must get along with."""

from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import Digits, Sequence
from transformers import AutoTokenizer

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
    path, bos = SHARED_TOKENIZERS.get(name) or (zoo_path(name), None)
    if not path.exists():
        pytest.skip(f"{path} is absent: the shared tokenizers are not part of the repository")
    return Vocabulary(AutoTokenizer.from_pretrained(path), bos)


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
