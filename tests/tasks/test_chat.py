"""The system prompt of conversations: the template's own, a chosen one, or none."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import circuitfind as cf
from circuitfind.directories.directory import RunDirectory
from circuitfind.errors import RunDirectoryError, TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.zoo import zoo_path
from circuitfind.tasks import find_task
from circuitfind.tasks.chat import conversation
from circuitfind.tasks.show import note_on_system, shown_pairs

from .conftest import load_vocabulary

USER = {"role": "user", "content": "Hello"}
TURNS = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OWN = (  # Adds a system prompt of its own where there is none, as those of SmolLM2 and Qwen do.
    "[{% if messages[0]['role'] != 'system' %}<system>Be quick.</>{% endif %}" + TURNS
)
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}" + TURNS


def chat_of(template: str) -> Vocabulary:
    tokenizer = copy.deepcopy(load_vocabulary("gpt2").tokenizer)
    tokenizer.chat_template = template
    return Vocabulary(tokenizer)


@pytest.mark.parametrize(
    ("template", "system", "text"),
    [
        (OWN, None, "[<system>Be quick.</><user>Hello</><assistant>"),
        (OWN, "Be kind.", "[<system>Be kind.</><user>Hello</><assistant>"),
        (OWN, "", "<user>Hello</><assistant>"),
        ("[" + TURNS, None, "[<user>Hello</><assistant>"),
        ("[" + TURNS, "", "[<user>Hello</><assistant>"),
        ("[" + TURNS, "Be kind.", "[<system>Be kind.</><user>Hello</><assistant>"),
        (STRICT, "", "<user>Hello</><assistant>"),
    ],
)
def test_a_conversation_has_the_system_prompt_that_is_chosen(template, system, text):
    vocabulary = Vocabulary(chat_of(template).tokenizer, system=system)
    assert conversation(vocabulary, [USER]).text == text


def test_a_chosen_one_takes_the_place_of_those_in_a_file(tmp_path):
    asked = {"clean": "Hello", "corrupted": "World", "answer": "Yes", "chat": True}
    (tmp_path / "mine.jsonl").write_text(json.dumps({**asked, "system": "Be rude."}))
    task = find_task(str(tmp_path / "mine.jsonl"))
    vocabulary = chat_of(OWN)
    texts = [
        vocabulary.decode(task.write_pairs(vocabulary, 1, 0, system=system)[0].clean)
        for system in (None, "Be kind.", "")
    ]
    assert texts == [
        "[<system>Be rude.</><user>Hello</><assistant>",
        "[<system>Be kind.</><user>Hello</><assistant>",
        "<user>Hello</><assistant>",
    ]


def test_a_template_that_refuses_system_prompts_says_so_and_one_that_changes_turns_too():
    with pytest.raises(TaskError, match="refuses these messages .none."):
        conversation(Vocabulary(chat_of(STRICT).tokenizer, system="Be kind."), [USER])
    counted = "{% for m in messages %}{{ loop.revindex }}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TaskError, match="its own system prompt cannot be left out; choose a"):
        conversation(Vocabulary(chat_of(counted).tokenizer, system=""), [USER])


def test_only_conversations_have_a_system_prompt(zoo_vocabulary):
    with pytest.raises(TaskError, match="'ioi' are not conversations, so they have no system"):
        cf.RunConfig("ioi", "gpt-4l", "acdc", {"threshold": 1.0}, system="Be kind.").validate()
    with pytest.raises(TaskError, match="has no chat template"):
        find_task("refusal").write_prompts(zoo_vocabulary, 1, 0, system="Be kind.")


def test_what_is_read_is_marked_at_the_end_of_the_template():
    vocabulary = chat_of(OWN)
    (row,) = shown_pairs(find_task("refusal"), vocabulary, n=1, system="", mark="▸")
    (pair,) = find_task("refusal").write_pairs(vocabulary, 1, 0, system="")
    assert row["clean"].replace("|", "").endswith("<assistant>▸") and row["clean"].count("▸") == 1
    assert row["read at"] == str(len(pair.clean) - 1) == row["positions"].split("end=")[1]
    assert "no system prompt" in note_on_system(find_task("refusal"), vocabulary, "")[0]
    assert note_on_system(find_task("ioi"), vocabulary) == []


WORDS = (
    "{% for m in messages %}"
    "{{ {'system': '', 'user': 'User: ', 'assistant': 'Assistant: '}[m['role']] }}"
    "{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def test_a_run_stores_it_and_refuses_another_one(tmp_path, monkeypatch):
    """The chat model is an embedded one with a template of words that it knows."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(zoo_path("gpt-2l"), "chatty")
    file = Path("chatty/tokenizer_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": WORDS}))
    model, search = cf.load_model("chatty"), {"threshold": 1.0}
    asked = {
        "clean": "Mary went to the store .",
        "corrupted": "John went to the store .",
        "answer": "Mary",
    }
    Path("mine.jsonl").write_text(json.dumps(asked | {"chat": True}))
    plain = cf.RunConfig("mine.jsonl", "chatty", "acdc", search, n_prompts=1)
    chosen = replace(plain, system="Mary went to the store .")
    with RunDirectory(Path("run"), chosen).recording({}):
        pass
    assert json.loads(Path("run/config.json").read_text())["system"] == chosen.system
    with pytest.raises(RunDirectoryError, match="system is Mary went to the store . there and not"):
        RunDirectory.open(Path("run"), plain)
    found = [config.problem(model).prompts.clean[0].tolist() for config in (plain, chosen)]
    first, second = map(model.vocabulary.decode, found)
    assert second == f"{chosen.system} {first}"
