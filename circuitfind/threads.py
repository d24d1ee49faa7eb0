"""How the threads of torch wait for one another."""

import os

A_MOMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}


def wait_a_moment() -> None:
    """Let threads that wait spin for some ten microseconds, then sleep; before torch is imported.

    A search runs thousands of short operations, so threads that sleep at once lose a fifth of the
    time in waking up. Threads that spin for milliseconds, as they do unless told otherwise, keep
    other processes from running: two searches on two cores then take several times as long. What
    the user has set stays.
    """
    if not A_MOMENT.keys() & os.environ.keys():
        os.environ.update(A_MOMENT)
