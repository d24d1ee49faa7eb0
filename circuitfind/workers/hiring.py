"""From the workers that a search is to have to those who start them."""

from circuitfind.errors import WorkerError
from circuitfind.workers.crew import Crew, Workers
from circuitfind.workers.processes import Place, ProcessCrew, visible_gpus


def crew_of(workers: Workers, device: str, threads: int) -> Crew:
    """Return who starts the workers beside this process, or all of them on a Ray cluster.

    On a cluster there may be room for fewer, which then have more to do each.

    Args:
        workers: Which workers.
        device: What they compute on: each worker has a GPU of its own, this process the first.
        threads: Threads of each process.

    Raises:
        WorkerError: There are not as many GPUs, no Ray, or no such cluster.
    """
    if workers.ray is not None:
        from circuitfind.workers.ray_crew import RayCrew

        return RayCrew(workers.ray, workers.n, threads=1, gpu=device == "cuda")
    n = workers.n - 1
    gpus: list[str | None] = [None] * n
    if device == "cuda":
        gpus = list(visible_gpus()[1:])
        if len(gpus) < n:
            raise WorkerError(
                f"{workers.n} workers take a GPU each and there are {1 + len(gpus)}; give fewer "
                "--workers"
            )
    return ProcessCrew([Place(threads, gpu) for gpu in gpus[:n]])
