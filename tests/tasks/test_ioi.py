import re
from collections import Counter

import pytest

from circuitfind.errors import TaskError
from circuitfind.tasks.ioi import ABBA, IOI, TEMPLATES, write
from circuitfind.tasks.words import NAMES


@pytest.mark.parametrize("seed", range(5))
def test_the_named_positions_hold_the_names(word_vocabulary, seed):
    for pair in write(word_vocabulary, 40, seed):
        right, wrong = pair.answers[0][0], pair.wrong_answers[0][0]
        at = pair.positions
        assert pair.clean[at["IO"]] == right
        assert pair.clean[at["S1"]] == pair.clean[at["S2"]] == wrong
        assert at["S1+1"] == at["S1"] + 1
        assert max(at["IO"], at["S1"]) < at["S2"] < at["end"] == len(pair.clean) - 1
        assert word_vocabulary.decode([pair.clean[at["end"]]]).strip() == "to"


@pytest.mark.parametrize("seed", range(5))
def test_corrupted_names_are_distinct_and_absent_from_the_clean_prompt(word_vocabulary, seed):
    for pair in write(word_vocabulary, 40, seed):
        others = [pair.corrupted[pair.positions[slot]] for slot in ("IO", "S1", "S2")]
        assert len(set(others)) == 3
        assert not set(others) & set(pair.clean)


def test_nothing_but_the_names_is_corrupted(word_vocabulary):
    for pair in write(word_vocabulary, 40, seed=0):
        differing = {
            i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupted, strict=True)) if a != b
        }
        assert differing == {pair.positions[slot] for slot in ("IO", "S1", "S2")}


def test_a_prompt_reads_as_its_template(zoo_vocabulary):
    for pair in write(zoo_vocabulary, 20, seed=0):
        pattern = re.sub(r"{\w+}", r"\\w+", TEMPLATES[pair.template].replace(".", r"\."))
        text = zoo_vocabulary.decode(pair.clean).replace(" ,", ",").replace(" .", ".")
        assert re.fullmatch(pattern, text)


def test_half_of_the_prompts_name_the_indirect_object_first(word_vocabulary):
    first = Counter(
        pair.positions["IO"] < pair.positions["S1"] for pair in write(word_vocabulary, 100, seed=3)
    )
    assert first == {True: 50, False: 50}


def test_every_template_and_most_names_are_used(word_vocabulary):
    pairs = write(word_vocabulary, 400, seed=0)
    assert {pair.template for pair in pairs} == set(range(2 * len(ABBA)))
    assert len({pair.answers[0][0] for pair in pairs}) > 0.8 * len(
        word_vocabulary.single_words(NAMES)
    )


def test_a_tokenizer_that_splits_names_is_refused(stories_vocabulary):
    with pytest.raises(TaskError, match=r"6 names that are single tokens .* has 3 of 100"):
        IOI.write_prompts(stories_vocabulary, 4, 0)


def test_the_published_circuit_names_heads_of_gpt2():
    heads = [head for role in IOI.known_circuit["heads"].values() for head in role]
    assert len(heads) == len(set(heads)) == 26
    roles = {*IOI.known_circuit["heads"], "embed", "logits", "heads", "mlps"}
    assert {end for path in IOI.known_circuit["paths"] for end in path[:2]} == roles
