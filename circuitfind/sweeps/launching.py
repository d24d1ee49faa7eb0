"""Runs of a sweep on workers, wherever these are."""

import time
from typing import Protocol, runtime_checkable

from circuitfind.sweeps.work import Job, Outcome, Worker
from circuitfind.workers.crew import Actor, Answer, Crew, LostError


@runtime_checkable
class Launcher(Protocol):
    """Has jobs done by workers."""

    def has_room(self) -> bool:
        """Return whether a worker is free."""
        ...

    def start(self, job: Job) -> None:
        """Give a job to a free worker."""
        ...

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Wait so long at most for jobs to end, and return those that did."""
        ...

    def close(self) -> None:
        """Stop all workers, whatever they are doing."""
        ...


class CrewLauncher:
    """Workers that each keep their model from run to run; one that dies is replaced.

    Args:
        crew: Starts them.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.actors: list[Actor] = [crew.start(place, Worker) for place in range(crew.size)]
        self._free = list(range(crew.size))
        self.running: dict[Answer, tuple[int, Job, float]] = {}

    def has_room(self) -> bool:
        return bool(self._free)

    def start(self, job: Job) -> None:
        place = self._free.pop(0)
        answer = self.actors[place].ask("run", job)
        self.running[answer] = place, job, time.monotonic()

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        ready = self._crew.ready(list(self.running), seconds)
        return [self._received(answer) for answer in ready]

    def close(self) -> None:
        for actor in self.actors:
            actor.kill()
        self.actors, self._free, self.running = [], [], {}
        self._crew.close()

    def _received(self, answer: Answer) -> tuple[Job, Outcome]:
        place, job, since = self.running.pop(answer)
        try:
            outcome: Outcome = answer.get()
        except LostError as error:
            outcome = Outcome("crashed", str(error), time.monotonic() - since)
            self.actors[place].kill()
            self.actors[place] = self._crew.start(place, Worker)
        self._free.append(place)
        return job, outcome
