"""The waiting of torch's threads for one another."""

import os

A_MOMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5000"}


def wait_a_moment() -> None:
    """Let threads that wait spin for 0.1 milliseconds, then sleep; before torch is imported.

    A search runs thousands of short operations, and threads that sleep sooner lose time in waking
    up. Threads that spin for milliseconds, as they do unless told otherwise, keep other processes
    from running: two searches on two cores then take several times as long as one after the other.
    What the user has set stays.
    """
    if not A_MOMENT.keys() & os.environ.keys():
        os.environ.update(A_MOMENT)
