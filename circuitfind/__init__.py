"""circuitfind: exact, fast circuit discovery for transformer language models.

    import circuitfind as cf

    model = cf.load_model("ioi-small")
    problem = cf.make_problem(model, task="ioi", n_prompts=64)
    found = cf.discover(problem, "acdc", threshold=0.02)
    found.circuit                       # draws itself in a notebook
    cf.scorecard(found)

Names are imported when they are first used, so that `circuitfind --help` need not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "AcdcOptions": "circuitfind.methods.acdc",
    "Assessment": "circuitfind.evaluation.assessment",
    "Circuit": "circuitfind.circuit",
    "CircuitfindError": "circuitfind.errors",
    "Dictionary": "circuitfind.dictionaries.dictionary",
    "EdgeScores": "circuitfind.circuit",
    "Found": "circuitfind.methods.search",
    "Graph": "circuitfind.graph",
    "IncrementalEngine": "circuitfind.engine.incremental",
    "METHODS": "circuitfind.methods",
    "METRICS": "circuitfind.metrics",
    "Metric": "circuitfind.metrics",
    "ModelShape": "circuitfind.shape",
    "Pair": "circuitfind.prompts",
    "PatchResult": "circuitfind.patching.result",
    "Places": "circuitfind.places",
    "Problem": "circuitfind.problem",
    "ProgressLine": "circuitfind.notebook",
    "PromptPairs": "circuitfind.prompts",
    "RunConfig": "circuitfind.directories.config",
    "Selection": "circuitfind.methods.selection",
    "TASKS": "circuitfind.tasks",
    "Task": "circuitfind.tasks.base",
    "Units": "circuitfind.graph",
    "Vocabulary": "circuitfind.models.vocabulary",
    "Wish": "circuitfind.verbs.wish",
    "attention_pattern": "circuitfind.engine.patterns",
    "certify": "circuitfind.evaluation.certify",
    "certify_run": "circuitfind.verbs.certify",
    "circuit_of": "circuitfind.patching.circuits",
    "collate": "circuitfind.prompts",
    "custom_metric": "circuitfind.metrics",
    "discover": "circuitfind.api",
    "dissociate_runs": "circuitfind.verbs.dissociate",
    "dissociation": "circuitfind.api",
    "draw_circuit": "circuitfind.reports.diagram",
    "draw_difference": "circuitfind.reports.diagram",
    "draw_heatmap": "circuitfind.reports.heatmap",
    "effect_of": "circuitfind.evaluation.edge_effects",
    "embedded_dictionaries": "circuitfind.dictionaries.zoo",
    "evaluate": "circuitfind.api",
    "evaluate_run": "circuitfind.verbs.evaluate",
    "export_circuit": "circuitfind.formats",
    "families": "circuitfind.api",
    "find_families": "circuitfind.verbs.families",
    "find_metric": "circuitfind.metrics",
    "find_rivals": "circuitfind.verbs.rivals",
    "find_roles": "circuitfind.comparison.roles",
    "find_task": "circuitfind.tasks",
    "heads_and_mlps": "circuitfind.granularity",
    "import_circuit": "circuitfind.formats",
    "import_publication": "circuitfind.verbs.published",
    "learned_constants": "circuitfind.engine.constants",
    "linearised_edges": "circuitfind.patching.path",
    "load_circuit": "circuitfind.circuit",
    "load_comparison": "circuitfind.comparison.result",
    "load_dictionaries": "circuitfind.dictionaries.loading",
    "load_model": "circuitfind.models.loading",
    "load_patching": "circuitfind.patching.files",
    "make_problem": "circuitfind.question",
    "measure_fit": "circuitfind.dictionaries.fit",
    "overlap": "circuitfind.comparison.overlap",
    "patch": "circuitfind.patching.sweep",
    "patch_report": "circuitfind.reports.patching",
    "patch_together": "circuitfind.patching.together",
    "path_patch": "circuitfind.patching.path",
    "publish_run": "circuitfind.verbs.publish",
    "repeat_run": "circuitfind.verbs.stability",
    "rivals": "circuitfind.api",
    "run_discovery": "circuitfind.verbs.discover",
    "save_compiled": "circuitfind.models.compiled_files",
    "save_patching": "circuitfind.patching.files",
    "scorecard": "circuitfind.evaluation.scorecard",
    "stability": "circuitfind.evaluation.stability",
    "suggest_threshold": "circuitfind.methods.threshold",
    "to_frame": "circuitfind.formats.tables",
    "to_networkx": "circuitfind.formats.networks",
    "unit_uses": "circuitfind.evaluation.unit_uses",
    "with_dictionaries": "circuitfind.models.dictionaries",
}

if TYPE_CHECKING:
    from circuitfind.api import discover as discover
    from circuitfind.api import dissociation as dissociation
    from circuitfind.api import evaluate as evaluate
    from circuitfind.api import families as families
    from circuitfind.api import rivals as rivals
    from circuitfind.circuit import Circuit as Circuit
    from circuitfind.circuit import EdgeScores as EdgeScores
    from circuitfind.circuit import load_circuit as load_circuit
    from circuitfind.comparison.overlap import overlap as overlap
    from circuitfind.comparison.result import load_comparison as load_comparison
    from circuitfind.comparison.roles import find_roles as find_roles
    from circuitfind.dictionaries.dictionary import Dictionary as Dictionary
    from circuitfind.dictionaries.fit import measure_fit as measure_fit
    from circuitfind.dictionaries.loading import load_dictionaries as load_dictionaries
    from circuitfind.dictionaries.zoo import embedded_dictionaries as embedded_dictionaries
    from circuitfind.directories.config import RunConfig as RunConfig
    from circuitfind.engine.constants import learned_constants as learned_constants
    from circuitfind.engine.incremental import IncrementalEngine as IncrementalEngine
    from circuitfind.engine.patterns import attention_pattern as attention_pattern
    from circuitfind.errors import CircuitfindError as CircuitfindError
    from circuitfind.evaluation.assessment import Assessment as Assessment
    from circuitfind.evaluation.certify import certify as certify
    from circuitfind.evaluation.edge_effects import effect_of as effect_of
    from circuitfind.evaluation.scorecard import scorecard as scorecard
    from circuitfind.evaluation.stability import stability as stability
    from circuitfind.evaluation.unit_uses import unit_uses as unit_uses
    from circuitfind.formats import export_circuit as export_circuit
    from circuitfind.formats import import_circuit as import_circuit
    from circuitfind.formats.networks import to_networkx as to_networkx
    from circuitfind.formats.tables import to_frame as to_frame
    from circuitfind.granularity import heads_and_mlps as heads_and_mlps
    from circuitfind.graph import Graph as Graph
    from circuitfind.graph import Units as Units
    from circuitfind.methods import METHODS as METHODS
    from circuitfind.methods.acdc import AcdcOptions as AcdcOptions
    from circuitfind.methods.search import Found as Found
    from circuitfind.methods.selection import Selection as Selection
    from circuitfind.methods.threshold import suggest_threshold as suggest_threshold
    from circuitfind.metrics import METRICS as METRICS
    from circuitfind.metrics import Metric as Metric
    from circuitfind.metrics import custom_metric as custom_metric
    from circuitfind.metrics import find_metric as find_metric
    from circuitfind.models.compiled_files import save_compiled as save_compiled
    from circuitfind.models.dictionaries import with_dictionaries as with_dictionaries
    from circuitfind.models.loading import load_model as load_model
    from circuitfind.models.vocabulary import Vocabulary as Vocabulary
    from circuitfind.notebook import ProgressLine as ProgressLine
    from circuitfind.patching.circuits import circuit_of as circuit_of
    from circuitfind.patching.files import load_patching as load_patching
    from circuitfind.patching.files import save_patching as save_patching
    from circuitfind.patching.path import linearised_edges as linearised_edges
    from circuitfind.patching.path import path_patch as path_patch
    from circuitfind.patching.result import PatchResult as PatchResult
    from circuitfind.patching.sweep import patch as patch
    from circuitfind.patching.together import patch_together as patch_together
    from circuitfind.places import Places as Places
    from circuitfind.problem import Problem as Problem
    from circuitfind.prompts import Pair as Pair
    from circuitfind.prompts import PromptPairs as PromptPairs
    from circuitfind.prompts import collate as collate
    from circuitfind.question import make_problem as make_problem
    from circuitfind.reports.diagram import draw_circuit as draw_circuit
    from circuitfind.reports.diagram import draw_difference as draw_difference
    from circuitfind.reports.heatmap import draw_heatmap as draw_heatmap
    from circuitfind.reports.patching import patch_report as patch_report
    from circuitfind.shape import ModelShape as ModelShape
    from circuitfind.tasks import TASKS as TASKS
    from circuitfind.tasks import find_task as find_task
    from circuitfind.tasks.base import Task as Task
    from circuitfind.verbs.certify import certify_run as certify_run
    from circuitfind.verbs.discover import run_discovery as run_discovery
    from circuitfind.verbs.dissociate import dissociate_runs as dissociate_runs
    from circuitfind.verbs.evaluate import evaluate_run as evaluate_run
    from circuitfind.verbs.families import find_families as find_families
    from circuitfind.verbs.publish import publish_run as publish_run
    from circuitfind.verbs.published import import_publication as import_publication
    from circuitfind.verbs.rivals import find_rivals as find_rivals
    from circuitfind.verbs.stability import repeat_run as repeat_run
    from circuitfind.verbs.wish import Wish as Wish

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'circuitfind' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
