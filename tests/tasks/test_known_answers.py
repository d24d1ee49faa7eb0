"""Answers of the tasks of arithmetic and of copied colours, worked out again from the text."""

import re

import pytest

from circuitfind.pairs import tokens_of
from circuitfind.tasks import find_task

from .conftest import load_vocabulary


@pytest.mark.parametrize("tokenizer", ["gpt2", "qwen-like", "llama3-like"])
@pytest.mark.parametrize("operation", ["addition", "subtraction"])
def test_answers_are_the_results_of_the_numbers_in_the_prompts(operation, tokenizer):
    vocabulary = load_vocabulary(tokenizer)
    for pair in find_task(operation).write(vocabulary, 60, 0):
        for prompt, answers in ((pair.clean, pair.answers), (pair.corrupted, pair.wrong_answers)):
            text = vocabulary.decode(prompt)
            one, other = map(int, re.findall(r"\d+", text))
            result = one + other if operation == "addition" else abs(one - other)
            ((answer,),) = answers
            assert int(vocabulary.decode(tokens_of(answer))) == result
            assert 10 <= result <= 99
        assert len(tokens_of(pair.answers[0][0])) == (2 if tokenizer == "qwen-like" else 1)


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama3-like"])
@pytest.mark.parametrize("name", ["copy-colours", "copy-colours:place"])
def test_the_right_letter_stands_before_the_colour_that_was_named(name, tokenizer):
    vocabulary = load_vocabulary(tokenizer)
    for pair in find_task(name).write(vocabulary, 60, 0):
        for prompt, answers in ((pair.clean, pair.answers), (pair.corrupted, pair.wrong_answers)):
            question, *choices = vocabulary.decode(prompt).split("\n")[:5]
            letters = {colour: letter for letter, colour in (line.split(". ") for line in choices)}
            (named,) = {word.strip(".") for word in question.split()} & {*letters}
            assert vocabulary.decode(answers[0]).strip() == letters[named]


def test_years_that_begin_with_three_digits_are_compared_by_these():
    vocabulary = load_vocabulary("llama3-like")
    for pair in find_task("greater-than").write(vocabulary, 60, 0):
        text = vocabulary.decode(pair.clean)
        assert text.endswith("the year ")
        year = int(re.search(r"\d{4}", text)[0])
        right, wrong = (
            {int(vocabulary.decode([token])) for token in side[0]}
            for side in (pair.answers, pair.wrong_answers)
        )
        first = year // 100 * 10
        assert right == {n for n in range(first, first + 10) if n > year // 10}
        assert wrong >= {n for n in range(first, first + 10) if n < year // 10}
        assert wrong <= {n for n in range(first, first + 10) if n <= year // 10}
