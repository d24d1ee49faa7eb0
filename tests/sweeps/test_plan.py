"""A sweep file says what it means, or everything that is wrong with it at once."""

import pytest

from circuitfind.errors import SweepError
from tests.sweeps.conftest import SMALL


def test_a_sweep_is_the_product_of_its_lists(planned):
    names = [run.name for run in planned(SMALL)]
    assert names == [
        f"scramble-program-{choice}-seed-{seed}"
        for choice in ("acdc-threshold-0.01", "exact-edges-5")
        for seed in (0, 1)
    ]


def test_a_run_has_the_settings_of_the_file(planned, program):
    run = planned(
        """
        models = ["scramble.json"]
        tasks = ["program"]
        metric = "kl"
        ablation = "zero"
        prompts = 7
        dtype = "float64"
        merge_qkv = true
        [methods.eap-ig]
        steps = 3
        edges = [4]
        """
    )[0].config
    assert (run.metric, run.ablation, run.n_prompts, run.dtype) == ("kl", "zero", 7, "float64")
    assert run.model == str(program)
    assert not run.split_qkv
    assert (run.options["steps"], run.selection["n_edges"]) == (3, 4)


def test_what_is_left_out_is_as_in_discover(planned):
    run = planned('tasks = ["pronoun"]\n[methods.random]\nedges = [4]')[0].config
    assert (run.model, run.seed, run.n_prompts, run.ablation) == ("gpt-4l", 0, 64, "resample")


def test_everything_that_is_wrong_is_said_at_once(planned):
    with pytest.raises(SweepError) as refused:
        planned(
            """
            models = ["ioi-small"]
            tasks = ["ioi", 7]
            seeds = ["a", true]
            prompts = "many"
            sedes = [1]
            [methods.guess]
            edges = [4]
            [methods.acdc]
            edges = [4]
            [methods.exact]
            thresholds = [nan]
            [methods.eap-ig]
            edges = [4]
            steps = "few"
            """
        )
    said = str(refused.value)
    for part in (
        "the file has an entry 'sedes'; its entries are models, tasks",
        "tasks holds 7, not text",
        "seeds holds 'a', not a whole number",
        "seeds holds True, not a whole number",
        "prompts is 'many', not a whole number",
        "no method named 'guess'",
        "--edges is for methods that rank edges",
        "methods.exact.thresholds holds nan, not a number",
        "the option 'steps' is of type int, which 'few' is not",
    ):
        assert part in said, said


def test_every_run_is_checked_before_any_runs(planned):
    with pytest.raises(SweepError) as refused:
        planned(
            """
            models = ["ioi-small"]
            tasks = ["ioi", "oi"]
            ablation = "knife"
            [methods.exact]
            edges = [4]
            """
        )
    said = str(refused.value)
    assert "no task named 'oi'" in said
    assert "no ablation named 'knife'" in said


def test_numbers_outside_their_ranges_are_said_once(planned):
    with pytest.raises(SweepError) as refused:
        planned(
            """
            models = ["ioi-small"]
            tasks = ["ioi", "pronoun"]
            prompts = 0
            [methods.exact]
            edges = [4]
            """
        )
    assert str(refused.value).count("prompts must be a whole number from 1 to") == 1


BROKEN = {
    "no TOML": ("models = [", "is not TOML"),
    "nothing": ("", "it has no tasks; .*; it has no methods"),
    "no methods": ('tasks = ["ioi"]', "it has no methods; give a table such as .methods.acdc."),
    "a method that is no table": (
        'tasks = ["ioi"]\nmethods = {acdc = 1}',
        "methods.acdc is 1, not",
    ),
    "a list that is none": ('tasks = "ioi"\n[methods.acdc]', "tasks is 'ioi', not a list"),
    "one GPU for all": (
        'tasks = ["ioi"]\ndevice = "cuda:1"\n[methods.exact]\nedges = [1]',
        "device names one GPU; give .cuda., and every worker has one",
    ),
    "no threshold": ('tasks = ["ioi"]\n[methods.acdc]', "methods.acdc needs thresholds"),
    "no number of edges": ('tasks = ["ioi"]\n[methods.exact]', "needs --edges, --threshold or"),
    "the same twice": (
        'tasks = ["ioi", "ioi"]\n[methods.exact]\nedges = [1]',
        "two runs would be called 'gpt-4l-ioi-exact-edges-1-seed-0'",
    ),
    "too many runs": (
        f'tasks = ["ioi"]\nseeds = {list(range(400))}\n[methods.exact]\nedges = {list(range(400))}',
        "it asks for 160,000 runs; at most 100,000 are possible",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(case, planned):
    text, said = BROKEN[case]
    with pytest.raises(SweepError, match=said):
        planned(text)
