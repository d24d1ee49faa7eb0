"""Options as text are read by the types that methods declare."""

import pytest

from circuitfind.errors import MethodError
from circuitfind.methods.settings import parsed_settings


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("eap-ig", "steps=7", {"steps": 7}),
        ("eap-ig", "variant=clean-corrupted", {"variant": "clean-corrupted"}),
        ("eap", "checkpoint=true", {"checkpoint": True}),
        ("eap", "signed=no", {"signed": False}),
        ("eap", "batch = 3", {"batch": 3}),
        ("edge-pruning", "learning-rate=0.5", {"learning_rate": 0.5}),
        ("edge-pruning", "penalty=2", {"penalty": 2.0}),
        ("acdc", "order=random", {"order": "random"}),
    ],
)
def test_a_value_has_the_type_of_its_option(method, text, expected):
    found = parsed_settings(method, [text])
    assert found == expected
    assert [type(value) for value in found.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("steps", "the option 'steps' has no value; give NAME=VALUE"),
        ("stride=3", "'eap-ig' has no option 'stride'; its options are batch, checkpoint, rules"),
        ("steps=many", "the option 'steps' is of type int, which 'many' is not"),
        ("checkpoint=maybe", "the option 'checkpoint' is of type bool, which 'maybe' is not"),
        ("batch=few", "the option 'batch' is of type int"),
    ],
)
def test_what_cannot_be_read_is_refused(text, line):
    with pytest.raises(MethodError, match=line):
        parsed_settings("eap-ig", [text])
