import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitfind.errors import CircuitfindError, MetricError, PromptError, TaskError
from circuitfind.metrics import check_metric, find_metric
from circuitfind.models.loading import load_model
from circuitfind.prompts import NO_TOKEN
from circuitfind.question import make_problem
from circuitfind.tasks import find_task
from circuitfind.tasks.reading import MOST_BYTES
from circuitfind.tasks.rows import COLUMNS
from circuitfind.tasks.show import shown_pairs
from tests.programs import write_program

from .conftest import load_vocabulary

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


@pytest.fixture(scope="module")
def gpt2():
    return load_vocabulary("gpt2")


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


LONG = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": "Mary and", "wrong_answer": "Mary to"}


def test_answers_of_several_tokens_are_read_as_words_and_as_ids(
    task_file, csv_file, zoo_vocabulary
):
    mary, both, to = map(zoo_vocabulary.answer, ("Mary", "and", "to"))
    prompt, other = (f"{' '.join(map(str, zoo_vocabulary.encode(s)))}" for s in (CLEAN, CORRUPTED))
    ids = {"clean_ids": [*map(int, prompt.split())], "corrupted_ids": [*map(int, other.split())]}
    ids |= {"answer_ids": [f"{mary}+{both}"], "wrong_answer_ids": f"{mary}+{to}"}
    header = "clean_ids,corrupted_ids,answer_ids,wrong_answer_ids"
    files = (
        task_file(LONG),
        csv_file(
            "clean,corrupted,answer,wrong_answer", f'"{CLEAN}","{CORRUPTED}",Mary and,Mary to'
        ),
    )
    found = [find_task(file).write_prompts(zoo_vocabulary, 1, 0) for file in files]
    found.append(find_task(task_file(ids)).write_prompts(zoo_vocabulary, 1, 0))
    row = f"{prompt},{other},{mary}+{both},{mary}+{to}"
    found.append(find_task(csv_file(header, row)).write_prompts(zoo_vocabulary, 1, 0))
    assert len({prompts.fingerprint for prompts in found}) == 1
    assert found[0].clean[0].tolist() == [*zoo_vocabulary.encode(CLEAN), mary]
    assert found[0].answers[0].tolist() == [[mary], [both]]
    assert found[0].wrong_answers[0].tolist() == [[mary], [to]]
    (shown,) = shown_pairs(find_task(task_file(LONG)), zoo_vocabulary)
    assert shown["answer"] == f"Mary|and {mary}+{both}"
    assert shown["clean"].endswith("to")


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
        (ROW | {"answer": True}, r"line 2: answer holds True; answers must be texts or token ids"),
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
        (
            ROW | {"answer": "Mary Jane", "steps": [3]},
            TaskError,
            r"line 2: the answer 'Mary Jane' is not a sing",
        ),
        (
            ROW | {"answer": ["Mary Jane", "Tom"]},
            PromptError,
            r"line 2 has 2 right answers, and one answer takes several",
        ),
        (
            ROW | {"wrong_answer": "Xerxes"},
            TaskError,
            r"line 2: the answer 'Xerxes' cannot be written .* model cannot read 'Xerxes'; use",
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
    with pytest.raises(TaskError, match="cannot read the task file .*: embedded null byte"):
        find_task("nothing\0.csv")
    with pytest.raises(TaskError, match="cannot read the task file .*: it is a directory"):
        (tmp_path / "folder.csv").mkdir()
        find_task(str(tmp_path / "folder.csv"))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(TaskError, match="it is a named pipe, not a file"):
        find_task(str(tmp_path / "pipe.csv"))
    with pytest.raises(TaskError, match=r"no task named 'xxx.{,200}\.\.\.; the tasks are"):
        find_task("x" * 10_000)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="it is not UTF-8 text"):
        find_task(str(tmp_path / "binary.csv"))


# ------------------------------------------------------------------------ what files may hold


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c"])
@pytest.mark.parametrize("name", ["gifts.csv", "gifts.jsonl"])
def test_a_prompt_may_hold_any_mark_that_ends_no_line(tmp_path, gpt2, mark, name):
    clean, corrupted = f"Mary{mark} gave", f"John{mark} gave"
    path = tmp_path / name
    row = {"clean": clean, "corrupted": corrupted, "answer": "it"}
    text = f"clean,corrupted,answer\r\n{clean},{corrupted},it\r\n"
    path.write_text(
        text if name.endswith("csv") else json.dumps(row, ensure_ascii=False), newline=""
    )
    prompts = find_task(str(path)).write_prompts(gpt2, 1, 0)
    assert gpt2.decode(prompts.clean[0].tolist()) == clean


@pytest.mark.parametrize(
    "lines",
    [
        ("clean;corrupted;answer;positions", f'{CLEAN};{CORRUPTED};Mary;"IO=2;S1=4"'),
        ("clean\tcorrupted\tanswer\tpositions", f"{CLEAN}\t{CORRUPTED}\tMary\tIO=2;S1=4"),
        ("clean, corrupted, answer, positions", f'"{CLEAN}", "{CORRUPTED}", Mary, IO=2;S1=4'),
        ('"Clean","CORRUPTED"," answer ",positions', f'"{CLEAN}","{CORRUPTED}",Mary,IO=2;S1=4'),
        ("positions,answer,corrupted,clean", f'IO=2;S1=4,Mary,"{CORRUPTED}","{CLEAN}"'),
    ],
)
@pytest.mark.parametrize("name", ["gifts.csv", "GIFTS.CSV"])
def test_tables_of_other_programs_say_the_same(task_file, zoo_vocabulary, lines, name):
    usual = task_file(ROW | {"wrong_answer": [], "positions": {"IO": 2, "S1": 4}}, name="a.JSONL")
    one, other = (
        find_task(path).write_prompts(zoo_vocabulary, 1, 0)
        for path in (usual, task_file(*lines, name=name))
    )
    assert one.fingerprint == other.fingerprint and one.positions == other.positions


def test_every_line_is_checked_and_the_first_bad_ones_are_named(task_file):
    bad = {"clean": "a", "corrupted": "b"}
    with pytest.raises(
        TaskError, match=r"4 of the 6 pairs in .*jsonl cannot be used, such as"
    ) as e:
        find_task(task_file(ROW, "[1]", "", bad, ROW, bad, bad))
    said = str(e.value)
    assert "line 2 is not a JSON object" in said and "line 4 (also 6) has no 'answer'" in said
    assert "\n" not in said and len(said) < 800


def test_a_message_quotes_little_of_a_file(task_file, csv_file, zoo_vocabulary):
    long = "Mary " * 30_000
    for path in (
        task_file(ROW | {"clean": long}),
        task_file(ROW | {"answer": long}),
        task_file(ROW | {long: "x"}),
        task_file(ROW | {"positions": long}),
        task_file(ROW | {"positions": {long: 1}}),
        csv_file("clean,corrupted,answer,positions", f"a,b,c,{long}"),
        csv_file(f"clean,corrupted,answer,{long}", "a,b,c,d"),
    ):
        with pytest.raises(CircuitfindError) as refused:
            find_task(path).write_prompts(zoo_vocabulary, 1, 0)
        assert str(refused.value).count("Mary") <= 200 // len("Mary ")


def test_files_that_are_too_large_are_refused_before_they_are_used(tmp_path):
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(TaskError, match="it has 64,000,001 bytes and at most 64,000,000 are read"):
        find_task(str(path))
    header, rows = "clean,corrupted,answer\n", "holds more than 10,000 pairs"
    for content, said in (
        (header + "a,b,c\n" * 200_000, rows),
        (header + "a,b\n" * 200_000, rows),
        (header + "\n" * 1_000_001, "more than 1,000,000 lines; leave out those that are empty"),
        ("," * 1_000_000, "a line of 1,000,000 characters, which is not the header of a task"),
    ):
        path.write_text(content)
        with pytest.raises(TaskError, match=said):
            find_task(str(path))


def test_a_pair_is_named_by_its_line_wherever_it_is_refused(task_file, zoo_vocabulary):
    model = load_model("ioi-small")
    rows = [ROW | {"answer": "Mary"}] * 3 + [{**ROW, "wrong_answer": []}]
    prompts = find_task(task_file("", *rows)).write_prompts(model.vocabulary, 4, 0)
    missing = prompts.source(3)
    assert missing == "gifts.jsonl, line 5" and prompts.select([3]).source(0) == missing
    with pytest.raises(MetricError, match=f"needs a wrong answer at every step and {missing} has"):
        check_metric(find_metric("logit-difference"), prompts)
    ids = {"clean_ids": [1, 2], "corrupted_ids": [1, 3], "answer_ids": 999_999}
    other = find_task(task_file("", "", ids)).write_prompts(model.vocabulary, 1, 0)
    with pytest.raises(PromptError, match="gifts.jsonl, line 3 has the answer 999999 and 'ioi-sma"):
        make_problem(model, other)


def test_repeated_lines_are_counted(task_file, zoo_vocabulary):
    prompts = find_task(task_file(*[ROW, SHORT] * 20)).write_prompts(zoo_vocabulary, 40, 0)
    assert (len(prompts), prompts.n_distinct) == (40, 2)


# ------------------------------------------------------------------ token ids and several steps


def test_token_ids_need_no_tokenizer_and_are_taken_as_they_are(task_file, csv_file):
    row = {"clean_ids": [0, 5, 6], "corrupted_ids": [0, 6, 5], "steps": [0, 2]}
    row |= {"answer_ids": [7, [8, 9]], "wrong_answer_ids": [[], 3], "positions": {"x": 1}}
    as_csv = csv_file(
        "clean_ids,corrupted_ids,steps,answer_ids,wrong_answer_ids,positions",
        "0 5 6,0 6 5,0 2,7;8|9,;3,x=1",
    )
    one, other = (find_task(p).write_prompts(None, 4, 0) for p in (task_file(row), as_csv))
    assert one.clean.tolist() == [[0, 5, 6]] and one.corrupted.tolist() == [[0, 6, 5]]
    assert one.steps.tolist() == [[0, 2]]
    assert one.answers.tolist() == [[[7, NO_TOKEN], [8, 9]]]
    assert one.wrong_answers.tolist() == [[[NO_TOKEN], [3]]]
    assert one.positions["x"].tolist() == [1]
    assert one.fingerprint == other.fingerprint


def test_a_class_label_is_read_at_the_first_position_of_a_model_without_a_tokenizer(
    task_file, tmp_path
):
    """The logits at position 0, from the model itself, are the oracle."""
    model = load_model(write_program(tmp_path, "labels"))
    row = {"clean_ids": [2, 1, 1], "corrupted_ids": [2, 0, 0], "steps": [0]}
    row |= {"answer_ids": 1, "wrong_answer_ids": 0}
    prompts = find_task(task_file(row)).write_prompts(None, 1, 0)
    problem = make_problem(model, prompts, metric="logit-difference")
    logits = model.own_logits(prompts.clean)
    read = prompts.at_steps(logits)
    assert problem.metric(read, prompts, read).item() == pytest.approx(
        (logits[0, 0, 1] - logits[0, 0, 0]).item()
    )


def test_answers_in_words_are_read_at_each_step(task_file, csv_file, gpt2):
    row = {"clean": "Mary gave a drink", "corrupted": "John gave a drink", "steps": [1, 3]}
    row |= {"answer": ["a", ["to", "and"]]}
    as_csv = csv_file(
        "clean,corrupted,steps,answer", "Mary gave a drink,John gave a drink,1;3,a;to|and"
    )
    one, other = (find_task(p).write_prompts(gpt2, 4, 0) for p in (task_file(row), as_csv))
    expected = [[gpt2.answer("a"), NO_TOKEN], [gpt2.answer("to"), gpt2.answer("and")]]
    assert one.answers[0].tolist() == expected and one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean_ids": [1]}, r"give clean or clean_ids, not both"),
        ({"clean": "", "clean_ids": [1, -1]}, r"clean_ids holds -1; token ids are whole numbers"),
        ({"clean": "", "clean_ids": [1, 2**70]}, r"clean_ids holds 1180591620717411303424; token"),
        ({"clean": None, "clean_ids": [1, 2]}, r"give both prompts as texts, or both as messages"),
        ({"steps": [1, 1]}, r"steps names a position twice"),
        ({"steps": [1, 2]}, r"answer has 1 entries and steps 2; give the answers of each step"),
        ({"steps": [99]}, r"the step is 99 and the prompt has 15 tokens"),
        ({"chat": "maybe"}, r"chat is 'maybe' and must be true or false"),
        ({"system": "Be kind."}, r"system is the text of a system prompt, and goes with chat"),
        ({"positions": {"a,b": 1}}, r"'a,b' cannot name a position"),
        ({"answer": [["x"], 3.5]}, r"answer has 2 entries and steps 1"),
        ({"answer": [3.5]}, r"answer holds 3.5; answers must be texts or token ids"),
        ({"clean": [{"role": "user"}]}, r"prompts must be texts, or lists of messages"),
    ],
)
def test_what_a_line_may_not_say_is_named(task_file, zoo_vocabulary, change, message):
    with pytest.raises(CircuitfindError, match=f"line 1: .*{message}"):
        find_task(task_file(ROW | change)).write_prompts(zoo_vocabulary, 1, 0)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
LIKELY = st.sampled_from(
    [[0], [1, 2], "Mary", ["Mary", 3], "IO=1", {"IO": 1}, True, [{"role": "user", "content": "a"}]]
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(COLUMNS), LIKELY | VALUE), st.booleans())
def test_any_line_becomes_a_pair_or_one_line_of_ours(tmp_path, zoo_vocabulary, row, add):
    path = tmp_path / "any.jsonl"
    path.write_text(json.dumps({**ROW, **row} if add else row), encoding="utf-8")
    try:
        find_task(str(path)).write_prompts(zoo_vocabulary, 4, 0)
    except CircuitfindError as error:
        assert "\n" not in str(error)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from([*COLUMNS, "\n", ",", ";", '"', "|", "1", "a b", "a", "\x00", " "]))
)
def test_any_table_becomes_pairs_or_one_line_of_ours(tmp_path, zoo_vocabulary, parts):
    path = tmp_path / "any.csv"
    path.write_text("clean,corrupted,answer,steps\n" + "".join(parts), encoding="utf-8")
    try:
        find_task(str(path)).write_prompts(zoo_vocabulary, 4, 0)
    except CircuitfindError as error:
        assert "\n" not in str(error)
