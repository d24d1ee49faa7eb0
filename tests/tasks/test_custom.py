import json
import re
from pathlib import Path

import pytest

from circuitfind.errors import PromptError, TaskError
from circuitfind.tasks import find_task

CLEAN = "Then, Mary and John went to the store. John gave a drink to"
CORRUPTED = "Then, Lily and Tom went to the store. Max gave a drink to"
ROW = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": "Mary", "wrong_answer": "John"}
SHORT = {"clean": "Mary gave a drink", "corrupted": "John gave a drink", "answer": ["to", "and"]}


@pytest.fixture
def task_file(tmp_path):
    """Writes a JSONL file from rows, or any file from text."""

    def write(*rows, name="gifts.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


@pytest.fixture
def csv_file(task_file):
    return lambda *lines: task_file(*lines, name="gifts.csv")


def test_a_json_file_becomes_pairs(task_file, zoo_vocabulary):
    task = find_task(task_file(ROW | {"positions": {"IO": 2, "S1": 4}}))
    prompts = task.write_prompts(zoo_vocabulary, 10, 0)
    assert (task.name, task.metric, len(prompts)) == ("gifts", "kl", 1)
    assert prompts.clean[0].tolist() == zoo_vocabulary.encode(CLEAN)
    assert prompts.corrupted[0].tolist() == zoo_vocabulary.encode(CORRUPTED)
    assert prompts.answers.tolist() == [[[zoo_vocabulary.answer("Mary")]]]
    assert prompts.wrong_answers.tolist() == [[[zoo_vocabulary.answer("John")]]]
    assert prompts.clean[0, prompts.positions["IO"][0]] == zoo_vocabulary.answer("Mary")


def test_a_csv_file_says_the_same_as_a_json_file(task_file, csv_file, zoo_vocabulary):
    row = ROW | {"answer": ["Mary", "Lily"], "positions": {"IO": 2, "S1": 4}}
    as_json = find_task(task_file(row))
    as_csv = find_task(
        csv_file(
            "clean,corrupted,answer,wrong_answer,positions",
            f'"{CLEAN}","{CORRUPTED}",Mary|Lily,John,IO=2; S1=4',
        )
    )
    one, other = (task.write_prompts(zoo_vocabulary, 1, 0) for task in (as_json, as_csv))
    assert one.fingerprint == other.fingerprint
    assert {k: v.tolist() for k, v in one.positions.items()} == {
        k: v.tolist() for k, v in other.positions.items()
    }


def test_the_documented_examples_are_the_same_pair(task_file, csv_file, zoo_vocabulary):
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    as_json, as_csv = (
        re.search(rf"```{language}\n(.*?)\n```", page, re.DOTALL).group(1)
        for language in ("json", "csv")
    )
    one, other = (
        find_task(path).write_prompts(zoo_vocabulary, 1, 0)
        for path in (task_file(as_json), csv_file(as_csv))
    )
    assert one.fingerprint == other.fingerprint
    assert one.clean[0, one.positions["S1"][0]] == zoo_vocabulary.answer("John")


def test_pairs_may_differ_in_length_and_number_of_answers(task_file, zoo_vocabulary):
    task = find_task(task_file(ROW, "", SHORT))
    prompts = task.write_prompts(zoo_vocabulary, 2, 0)
    assert task.metric == "kl"
    assert prompts.lengths.tolist() == [15, 4]
    assert prompts.answers[1, 0].tolist() == [zoo_vocabulary.answer(w) for w in ("to", "and")]


def test_positions_do_not_count_the_token_before_the_prompt(task_file, stories_vocabulary):
    row = {"clean": "a girl", "corrupted": "a boy.", "answer": "She", "positions": {"a": 0}}
    row["corrupted"] = "a boy"
    prompts = find_task(task_file(row)).write_prompts(stories_vocabulary, 1, 0)
    assert prompts.positions["a"].tolist() == [1]


def test_fewer_prompts_than_lines_are_a_sample_that_the_seed_fixes(task_file, zoo_vocabulary):
    names = ["Mary", "Lily", "Emma", "Lucy", "Kate", "Jane", "Anna", "Sarah"]
    rows = [ROW | {"answer": name} for name in names]
    task = find_task(task_file(*rows))
    drawn = [task.write_prompts(zoo_vocabulary, 4, seed).answers.flatten() for seed in (0, 0, 1)]
    order = [zoo_vocabulary.answer(name) for name in names]
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()
    assert sorted(drawn[0].tolist(), key=order.index) == drawn[0].tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"clean": ', r"line 2 is not JSON"),
        ("[1]", r"line 2 is not a JSON object"),
        ({"clean": "a", "answer": "b"}, r"line 2 has no 'corrupted'; the columns are clean"),
        (ROW | {"wrong": "x"}, r"line 2 has a column 'wrong'; the columns are clean"),
        (ROW | {"answer": 3}, r"line 2: prompts must be texts"),
        (ROW | {"clean": 3}, r"line 2: prompts must be texts"),
        (ROW | {"positions": {"IO": "2"}}, r"line 2: positions must be an object"),
        (ROW | {"positions": [2]}, r"line 2: positions must be an object"),
    ],
)
def test_a_bad_json_line_is_named(task_file, row, message):
    with pytest.raises(TaskError, match=message):
        find_task(task_file(ROW, row))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Mary, and John,b,c,d,e", r"line 2 does not have the 5 columns of the header"),
        ("Mary,John", r"line 2 does not have the 5 columns of the header"),
        ("Mary,,to,,", r"line 2 has no 'corrupted'"),
        ("Mary,John,to,,IO:2", r"line 2: cannot read the positions 'IO:2'; write name=index"),
        ('"Mary"x,John,to,,', r"line 2 is not CSV"),
    ],
)
def test_a_bad_csv_line_is_named(csv_file, line, message):
    with pytest.raises(TaskError, match=message):
        find_task(csv_file("clean,corrupted,answer,wrong_answer,positions", line))


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (
            ROW | {"corrupted": "Then, Lily went"},
            PromptError,
            r"line 2 is misaligned: 15 clean tokens Then\|,\|Mary.* and 4 corrupted ones Then\|,\|",
        ),
        (ROW | {"corrupted": CLEAN}, PromptError, r"line 2: the corruption changes nothing"),
        (ROW | {"answer": "Mary Jane"}, TaskError, r"line 2: the answer 'Mary Jane' is not a sing"),
        (
            ROW | {"wrong_answer": "Xerxes"},
            TaskError,
            r"line 2: the answer 'Xerxes' is not a single",
        ),
        (
            ROW | {"positions": {"IO": 15}},
            PromptError,
            r"line 2: the position 'IO' is 15 and the prompt has 15 tokens",
        ),
        (ROW | {"positions": {"IO": -1}}, PromptError, r"line 2: the position 'IO' is -1"),
    ],
)
def test_a_pair_that_the_tokenizer_cannot_express_is_named(
    task_file, zoo_vocabulary, row, error, message
):
    task = find_task(task_file(ROW, row))
    with pytest.raises(error, match=message):
        task.write_prompts(zoo_vocabulary, 2, 0)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_an_empty_file_is_refused(task_file, name):
    with pytest.raises(TaskError, match="holds no pairs of prompts"):
        find_task(task_file("", name=name))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"cannot read the task file .*: No such file"):
        find_task(str(tmp_path / "absent.jsonl"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="it is not UTF-8 text"):
        find_task(str(tmp_path / "binary.csv"))
