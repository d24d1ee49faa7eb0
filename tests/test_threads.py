"""How threads wait: shortly, unless the user says otherwise."""

import os

import pytest

from circuitfind.threads import wait_a_moment

POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {POLICY: "PASSIVE", SPINS: "5000"}),
        ({POLICY: "ACTIVE"}, {POLICY: "ACTIVE"}),
        ({SPINS: "0"}, {SPINS: "0"}),
    ],
)
def test_threads_wait_a_moment_unless_the_user_says_otherwise(monkeypatch, own, expected):
    for name in (POLICY, SPINS):
        # Set first, so that what the function sets is undone too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    wait_a_moment()
    assert {name: os.environ[name] for name in (POLICY, SPINS) if name in os.environ} == expected
