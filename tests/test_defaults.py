"""What is not given means the same on the command line, in Python and in a stored run."""

import inspect
from dataclasses import MISSING, fields

import pytest

import circuitfind as cf
from circuitfind.commands.bench import bench
from circuitfind.commands.certify import certify
from circuitfind.commands.compare import compare
from circuitfind.commands.discover import discover
from circuitfind.commands.dissociate import dissociate
from circuitfind.commands.families import families
from circuitfind.commands.patching import patch, path_patch
from circuitfind.commands.rivals import rivals
from circuitfind.commands.stability import stability
from circuitfind.directories.comparison import ComparisonConfig
from circuitfind.directories.config import RunConfig
from circuitfind.directories.dissociation import DissociationConfig
from circuitfind.directories.families import FamiliesConfig
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.sweeps.plan import read_sweep
from circuitfind.verbs.evaluate import Wish
from circuitfind.verbs.stability import repeat_run


def defaults_of(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def stored_defaults(kind):
    return {item.name: item.default for item in fields(kind) if item.default is not MISSING}


def test_a_search_has_the_same_defaults_everywhere(tmp_path):
    command, stored, made = (
        defaults_of(discover), stored_defaults(RunConfig), defaults_of(cf.make_problem),
    )  # fmt: skip
    assert command["prompts"] == stored["n_prompts"] == made["n_prompts"]
    assert defaults_of(bench)["prompts"] == stored["n_prompts"]
    assert command["seed"] == stored["seed"] == made["seed"]
    assert command["ablation"] == stored["ablation"] == made["ablation"]
    assert command["method"] == defaults_of(cf.discover)["method"]
    # In Python, no device means where an object's weights are; what has none yet is on the CPU.
    assert command["device"] == stored["device"] == "cpu"
    assert cf.load_model("and-gate").device.type == "cpu"
    assert command["dtype"] is stored["dtype"] is defaults_of(cf.load_model)["dtype"] is None
    assert (not command["merge_qkv"], command["split_embedding"]) == (
        stored["split_qkv"], stored["split_embedding"],
    )  # fmt: skip
    file = tmp_path / "sweep.toml"
    file.write_text('tasks = ["ioi"]\n[methods.acdc]\nthresholds = [0.5]\n')
    (run,) = read_sweep(file)
    options = {"threshold": 0.5}
    assert run.config == RunConfig("ioi", "gpt-4l", "acdc", options).pinned()


@pytest.mark.parametrize("task", ["ioi", "greater-than", "program", "and-gate"])
def test_a_metric_that_is_not_chosen_is_the_task_s_own(task):
    own = cf.find_task(task).metric
    assert RunConfig(task, "gpt-4l", "acdc").metric == own
    model = cf.load_model("and-gate" if task in ("program", "and-gate") else "gpt-4l")
    assert cf.make_problem(model, task, n_prompts=2).metric.name == own


@pytest.mark.parametrize("command", [patch, path_patch])
def test_patching_has_the_same_defaults_everywhere(command):
    given, stored = defaults_of(command), stored_defaults(PatchConfig)
    made = defaults_of(cf.make_problem)
    assert given["prompts"] == stored["n_prompts"] == made["n_prompts"]
    for name in ("seed", "metric", "dtype", "device", "threshold"):
        assert given[name] == stored[name], name
    python = {patch: cf.patch, path_patch: cf.path_patch}[command]
    assert given["mode"] == defaults_of(python)["mode"]


def test_what_follows_a_search_has_the_same_defaults_everywhere():
    assert defaults_of(stability)["repetitions"] == defaults_of(repeat_run)["n"]
    assert defaults_of(stability)["share"] == defaults_of(repeat_run)["share"]
    assert defaults_of(compare)["draws"] == ComparisonConfig().draws
    assert defaults_of(compare)["seed"] == ComparisonConfig().seed
    ours = {name: defaults_of(certify)[name] for name in ("cases", "tries", "tolerance")}
    assert all(ours.items() <= defaults_of(each).items() for each in (cf.certify, cf.certify_run))
    asked, stored = defaults_of(dissociate), DissociationConfig()
    assert asked["draws"] == stored.draws == defaults_of(cf.dissociation)["draws"]
    assert asked["seed"] == stored.seed == defaults_of(cf.dissociation)["seed"]
    for name in ("restarts", "threshold", "tolerance", "seed"):
        given, kept = defaults_of(rivals)[name], getattr(RivalsConfig(), name)
        assert given == kept == defaults_of(cf.rivals)[name], name
    for name in ("ranked_by", "families", "target_faithfulness", "seed"):
        given, kept = defaults_of(families)[name], getattr(FamiliesConfig(), name)
        assert given == kept == defaults_of(cf.families)[name], name
    assert defaults_of(cf.evaluate)["effort"] == Wish().effort.name
