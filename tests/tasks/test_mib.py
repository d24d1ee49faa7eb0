"""Rows of MIB's data sets: filters, tokens and masks as its code has them."""

import json

import pytest

from circuitfind.errors import TaskError
from circuitfind.tasks import find_task

from .conftest import load_vocabulary

CLEAN = "After Nora and Felix left the library, Felix gave a map to"
FLIPPED = "After Nora and Felix left the library, Nora gave a map to"


def ioi(clean=CLEAN, flipped=FLIPPED, names=("Felix", "Nora", "Mary")):
    subject, indirect_object, random_c = names
    metadata = {"subject": subject, "indirect_object": indirect_object, "random_c": random_c}
    return {
        "prompt": clean,
        "template": "invented",
        "metadata": metadata,
        "s2_io_flip_counterfactual": {"prompt": flipped},
    }


def choices(labels="ABCD", others="QRST", key=1):
    def prompt(letters):
        lines = zip(letters, ("pink", "teal", "grey", "black"), strict=True)
        listed = "\n".join(f"{letter}. {colour}" for letter, colour in lines)
        return f"Question: The kettle is teal. What color is the kettle?\n{listed}\nAnswer:"

    return {
        "prompt": prompt(labels),
        "choices": {"label": list(labels)},
        "answerKey": key,
        "symbol_counterfactual": {
            "prompt": prompt(others), "choices": {"label": list(others)}, "answerKey": key,
        },
    }  # fmt: skip


def arithmetic(a=23, b=41, c=50, d=11, operator="+"):
    return {
        "prompt": f"The sum of {a} and {b} is ",
        "label": str(a + b),
        "operator": operator,
        "random_counterfactual": {"prompt": f"The sum of {c} and {d} is ", "label": str(c + d)},
    }


@pytest.fixture
def gpt2(shared):
    return load_vocabulary("gpt2")


@pytest.fixture
def task_of(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return find_task(str(path))

    return write


def ids(vocabulary, text):
    return vocabulary.tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [(ioi(), " Nora", " Felix"), (choices(), "B", "R"), (arithmetic(), "64", "61")],
)
def test_prompts_begin_with_the_start_token_and_answers_are_as_the_data_sets_have_them(
    gpt2, task_of, row, right, wrong
):
    task = task_of(row)
    assert task.metric == "logit-difference"
    (pair,) = task.write_pairs(gpt2, 5, 0)
    start = gpt2.tokenizer.bos_token_id
    assert list(pair.clean) == [start, *ids(gpt2, row["prompt"])]
    column = next(name for name in row if name.endswith("counterfactual"))
    assert list(pair.corrupted) == [start, *ids(gpt2, row[column]["prompt"])]
    assert pair.answers == [[ids(gpt2, right)[0]]]
    assert pair.wrong_answers == [[ids(gpt2, wrong)[0]]]


def test_the_first_rows_after_the_filters_are_taken_in_their_order(gpt2, task_of):
    long = ioi(names=("Felix", "Nora", "Bartholomew"))
    assert len(ids(gpt2, " Bartholomew")) > len(ids(gpt2, " Nora"))
    others = [ioi(clean=CLEAN.replace("map", thing)) for thing in ("key", "ring", "book")]
    task = task_of(long, *others)
    pairs = task.write_pairs(gpt2, 2, seed=5)
    assert [pair.source for pair in pairs] == ["rows.jsonl, line 2", "rows.jsonl, line 3"]
    assert len(task.write_pairs(gpt2, 50, seed=0)) == 3


def test_results_of_several_tokens_and_other_operators_are_left_out(gpt2, task_of):
    missing = {**arithmetic(), "random_counterfactual": None}
    wide = arithmetic(70000, 12345)
    task = task_of(arithmetic(), missing, wide, arithmetic(30, 5, operator="-"), arithmetic(1, 2))
    assert [pair.source[-1] for pair in task.write_pairs(gpt2, 9, 0)] == ["1", "5"]


def test_the_corrupted_run_sees_the_clean_attention_mask(gpt2, task_of):
    shorter = ioi(flipped="After Nora and Felix left, Nora gave a map to")
    longer = ioi(flipped=FLIPPED.replace("left", "quietly left"))
    for row in (shorter, longer):
        (pair,) = task_of(row).write_pairs(gpt2, 1, 0)
        tokens = [gpt2.tokenizer.bos_token_id]
        tokens += ids(gpt2, row["s2_io_flip_counterfactual"]["prompt"])
        padding = gpt2.tokenizer.eos_token_id
        n = len(pair.clean)
        assert list(pair.corrupted) == (tokens + [padding] * n)[:n]


def test_a_row_whose_answers_are_the_same_says_nothing(gpt2, task_of):
    task = task_of(arithmetic(23, 41, 60, 4), arithmetic())
    assert [pair.source[-1] for pair in task.write_pairs(gpt2, 2, 0)] == ["2"]


def test_files_without_a_usable_row_are_refused(gpt2, task_of):
    with pytest.raises(TaskError, match="has no row that this model's tokenizer can express"):
        task_of(ioi(names=("Felix", "Nora", "Bartholomew"))).write_pairs(gpt2, 1, 0)
    with pytest.raises(TaskError, match="holds no pairs of prompts"):
        task_of({**arithmetic(), "random_counterfactual": None})
    broken = {name: value for name, value in ioi().items() if name != "metadata"}
    with pytest.raises(TaskError, match="line 1 is not a row of MIB's data sets: it has no 'meta"):
        task_of(broken)
    with pytest.raises(TaskError, match="line 2 is not a row of MIB's data sets: it has none of"):
        task_of(ioi(), {"prompt": CLEAN})
    with pytest.raises(TaskError, match="line 1 is not a row of MIB's data sets: it has no 'prom"):
        task_of({name: value for name, value in ioi().items() if name != "prompt"})
    with pytest.raises(TaskError, match="line 1 has None at 'subject', which is not a text"):
        task_of(ioi(names=(None, "Nora", "Mary")))
    with pytest.raises(TaskError, match=r"has the labels \[None, '61'\], which must be texts"):
        task_of({**arithmetic(), "label": None})
    with pytest.raises(TaskError, match="line 1 is not as the rows of MIB's data sets are"):
        task_of(choices(key="B"))
    with pytest.raises(TaskError, match="has a prompt that is no text"):
        task_of({**ioi(), "prompt": 3})
