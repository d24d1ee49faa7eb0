import os
import subprocess
import sys

import pytest

from circuitfind.errors import TaskError
from circuitfind.metrics import METRICS, check_metric, find_metric
from circuitfind.tasks import find_task
from circuitfind.tasks.corpus import TRAINED
from circuitfind.tasks.show import shown_pairs

WORD_TASKS = TRAINED
"""Those whose words the tokenizer of the embedded models knows."""


def test_the_same_arguments_give_the_same_prompts_in_every_process(zoo_vocabulary):
    script = (
        "from circuitfind.models.vocabulary import Vocabulary\n"
        "from circuitfind.models.zoo.training import word_tokenizer\n"
        "from circuitfind.tasks.corpus import TRAINED, vocabulary_words\n"
        "vocabulary = Vocabulary(word_tokenizer(vocabulary_words()))\n"
        "for task in TRAINED:\n"
        "    print(task.write_prompts(vocabulary, 32, 7).fingerprint)\n"
    )
    here = [task.write_prompts(zoo_vocabulary, 32, 7).fingerprint for task in WORD_TASKS]
    assert printed_by(script, hash_seed="1").split() == here


@pytest.mark.parametrize("task", WORD_TASKS, ids=lambda task: task.name)
def test_another_seed_gives_other_prompts(task, zoo_vocabulary):
    seen, held_out = (
        {tuple(pair.clean) for pair in task.write(zoo_vocabulary, 50, seed)} for seed in (0, 1)
    )
    assert len(seen & held_out) <= 5


@pytest.mark.parametrize("task", WORD_TASKS, ids=lambda task: task.name)
def test_fewer_prompts_are_the_first_of_more(task, zoo_vocabulary):
    assert list(task.write(zoo_vocabulary, 5, 3)) == list(task.write(zoo_vocabulary, 9, 3))[:5]


@pytest.mark.parametrize("task", WORD_TASKS, ids=lambda task: task.name)
def test_every_metric_can_be_asked_of_the_prompts(task, zoo_vocabulary):
    prompts = task.write_prompts(zoo_vocabulary, 8, 0)
    assert find_metric(task.metric)
    for metric in METRICS:
        check_metric(metric, prompts)


def test_shown_prompts_name_positions_in_order_and_cut_long_answers_short(zoo_vocabulary):
    for row in shown_pairs(find_task("greater-than"), zoo_vocabulary):
        places = [int(place.partition("=")[2]) for place in row["positions"].split()]
        assert places == sorted(places) and len(places) == 4
        later = row["answer"].split(", ")
        year, token = later[-1].split()
        assert len(later) <= 12 and year == "99" == zoo_vocabulary.decode([int(token)])
        assert "..." in row["answer"] + row["wrong answer"]


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(TaskError, match=r"no task named 'oi'; .* ioi, pronoun, induction.*\.csv"):
        find_task("oi")


def test_tasks_do_not_import_the_libraries_under_the_models():
    script = (
        "import sys, circuitfind.tasks\n"
        "print([name for name in ('transformers', 'transformer_lens') if name in sys.modules])"
    )
    assert printed_by(script).strip() == "[]"


def printed_by(script, hash_seed="0"):
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
