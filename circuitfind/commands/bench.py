"""The command `bench`."""

from typing import Annotated

from circuitfind.commands.console import interruptible, print_facts, tell
from circuitfind.commands.options import (
    Budget,
    Device,
    Dtype,
    Json,
    Memory,
    Metric,
    Model,
    Prompts,
    Seed,
    System,
    Task,
    limited,
)


def bench(
    task: Task,
    model: Model = None,
    components: Annotated[
        int | None,
        limited(
            "components",
            "Heads and MLPs of the circuit that the search is assumed to end at.",
            default="30, or half of the model's where those are fewer",
        ),
    ] = None,
    metric: Metric = None,
    prompts: Prompts = 64,
    seed: Seed = 0,
    system: System = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    memory: Memory = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Predict what an ACDC search of TASK takes here, from a few of its tests; beside brute force.

    A random circuit of as many components is assumed. What a search really takes follows the
    circuit that it finds.
    """
    from circuitfind.methods.benchmark import benchmarked
    from circuitfind.methods.forecast import MOST_SECONDS
    from circuitfind.models.loading import load_model
    from circuitfind.question import make_problem
    from circuitfind.tasks import model_for

    with interruptible(None, budget):
        loaded = load_model(model_for(task, model), dtype=dtype, device=device)
        problem = make_problem(
            loaded, task, n_prompts=prompts, seed=seed, metric=metric, system=system
        )
        tell(f"measuring a few tests of the search, for about {MOST_SECONDS:.0f} seconds at most")
        facts = benchmarked(problem, components, memory)
    print_facts(facts, as_json=as_json)
