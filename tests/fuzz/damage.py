"""Files as they should not be: damaged byte by byte, or with values that make no sense."""

import copy
import json
import math
import random
from typing import Any

NASTY_BYTES = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\n", b"\r\n", b'"', b"{", b"}", b"[" * 3000, b"]",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"-1", b"0", b"null", b"true", b'"\\ud800"',
    b"../../../etc/passwd", b"<!DOCTYPE x>", b"cposix\nsystem\n(S'true'\ntR.", b"\\", b"'", b"#",
    b"->", b",", b"=",
)  # fmt: skip
NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, math.nan, math.inf,
    "", " ", "\x00", "\ud800", "a" * 5000, "../../up", "/etc/passwd", "embed->m0", "m0->embed",
    "x->", "->", "a0.h0->a0.h0.q", "input->logits", [], {}, [[]], [None], {"": None}, [1, 2],
    "NaN", "\n", "kl", "acdc", "cuda", "cuda:99", "ioi", "<script>", "%s{}", {"__class__": "x"},
)  # fmt: skip


def damaged_bytes(content: bytes, random_number: random.Random) -> bytes:
    """Damage a file in one to three places."""
    for _ in range(random_number.randint(1, 3)):
        content = _damaged_once(content, random_number)
    return content


def _damaged_once(content: bytes, random_number: random.Random) -> bytes:
    place = random_number.randint(0, len(content))
    other = min(len(content), place + random_number.randint(1, 40))
    nasty = random_number.choice(NASTY_BYTES)
    return random_number.choice(
        (
            content[:place],
            content[place:],
            content[:place] + bytes([random_number.randrange(256)]) + content[place + 1 :],
            content[:place] + nasty + content[place:],
            content[:place] + nasty + content[other:],
            content[:place] + content[other:],
            content[:other] + content[place:],
            content + content[place:other],
        )
    )


def damaged_json(value: Any, random_number: random.Random) -> bytes:
    """Change one to three values, names or lengths of a JSON text."""
    value = copy.deepcopy(value)
    for _ in range(random_number.randint(1, 3)):
        value = _changed(value, random_number)
    return json.dumps(value).encode()


def _changed(value: Any, random_number: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or random_number.random() < 0.15:
        return copy.deepcopy(random_number.choice(NASTY_VALUES))
    key = random_number.choice(list(value) if isinstance(value, dict) else range(len(value)))
    choice = random_number.random()
    if choice < 0.12:
        del value[key]
    elif choice < 0.2 and isinstance(value, dict):
        value[random_number.choice(("", "a0.h1", "x" * 300, "__init__", "\ud800"))] = value.pop(key)
    elif choice < 0.3 and isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))
    else:
        value[key] = _changed(value[key], random_number)
    return value


def damaged(content: bytes, random_number: random.Random) -> bytes:
    """Damage a file in one way or the other."""
    if random_number.random() < 0.6:
        try:
            return damaged_json(json.loads(content), random_number)
        except ValueError:
            pass
    return damaged_bytes(content, random_number)
