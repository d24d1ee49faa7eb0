"""The question of a run: everything that fixes a problem, as plain values for a file.

A question names the task, the model, the metric and so on, as a user does; the problem that it
builds holds the loaded model and the prompts, as a method needs them. Every search, measurement by
patching and circuit holds its question, so that each can be asked again later on.
`Question.problem` is the one place where a problem is built from settings, `Models` the one place
where models are loaded and kept, and `what_changed` the one check that model and prompts are still
what they were.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from circuitfind.ablations import Ablation
from circuitfind.circuit import Circuit
from circuitfind.constant_files import ablation_of, constants_file, require_ablation
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.units import EMBEDDED, dictionaries_for
from circuitfind.engine.direction import with_direction
from circuitfind.errors import (
    ModelError,
    PromptError,
    RunDirectoryError,
    TaskError,
    quoted,
)
from circuitfind.files import digest, path_of
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.limits import require, require_fields
from circuitfind.methods.shortlist import (
    RANKED_BY,
    SHORTLIST,
    require_no_constants,
    require_units,
    with_units,
)
from circuitfind.metrics import Metric, find_metric
from circuitfind.models.base import ResidualModel
from circuitfind.models.dictionaries import with_dictionaries
from circuitfind.models.fingerprint import weights_fingerprint
from circuitfind.models.loading import load_model
from circuitfind.models.precision import DTYPES, precision_note
from circuitfind.models.zoo import ZOO
from circuitfind.patching.metric import with_metric
from circuitfind.places import Places
from circuitfind.placing import placed, require_placing, spans_file
from circuitfind.problem import Problem, assemble, require_parts
from circuitfind.prompts import PromptPairs
from circuitfind.records import from_json
from circuitfind.settings import Settings
from circuitfind.tasks import find_task, task_file

DEVICES = ("cpu", "cuda")

_NEEDED = ("task", "model", "n_prompts", "seed")
"""What the file of a circuit must say so that its problem can be built again."""

_HELD_OUT_SEED = 1_000_003
"""Added to the seed for held-out prompts, so that no seed a user tries meets them."""

Asked = TypeVar("Asked", bound="Question")


@dataclass(frozen=True)
class Question(Settings):
    """Task, model, prompts, metric and ablation of a search.

    Attributes:
        task: Name of a task, or the path of a .jsonl or .csv file.
        model: What `load_model` takes, as text.
        metric: Name of the metric; None where nobody chose one.
        ablation: What a cut edge carries: a name, or the path of a file of learned constants.
        n_prompts: How many pairs of prompts; a custom file may hold fewer.
        seed: Fixes the prompts and every random choice.
        system: The system prompt of conversations with a chat model, empty for none; None is that
            of the task's file, or of the model's chat template.
        dtype: Number type of the weights; None means that of the file.
        device: Where to compute; the same question elsewhere is the same question.
        memory: How many bytes may be taken beside the model; None is what it takes. No result
            depends on it.
        split_qkv: Whether a head's query, key and value are separate readers.
        split_embedding: Whether token and position embedding are separate writers.
        places: How edges are told apart by place (`circuitfind.placing.PLACINGS`, or a file of
            spans); None where an edge acts at all positions.
        crossing: Whether the moves inside attention from place to place are edges too.
        neurons: Layers whose neurons may be writers: numbers and ranges (`3-5,8`), or `all`.
        latents: Dictionaries whose latents may be writers: a directory, or `zoo` for those that
            ship with the package.
        shortlist: How many neurons or latents become writers; of no use without these.
        ranked_by: By what they are chosen (`methods.shortlist.ranking_of`).
        task_digest: A hash of the task's file, where it has one, so that an edited file is
            another question; filled in by `located`.
        ablation_digest: A hash of the file of constants, if cut edges carry such; filled in by
            `located`, too.
        resample: Number of a resample: as many of the prompts, drawn with replacement. None is the
            prompts themselves.
    """

    task: str
    model: str
    _: KW_ONLY
    metric: str | None = None
    ablation: str = "resample"
    n_prompts: int = 64
    seed: int = 0
    system: str | None = None
    dtype: str | None = None
    device: str = "cpu"
    memory: int | None = None
    split_qkv: bool = True
    split_embedding: bool = False
    places: str | None = None
    crossing: bool = False
    neurons: str | None = None
    latents: str | None = None
    shortlist: int = SHORTLIST
    ranked_by: str = RANKED_BY
    task_digest: str | None = None
    ablation_digest: str | None = None
    resample: int | None = None

    incidental: ClassVar[frozenset[str]] = frozenset({"device", "memory"})

    @classmethod
    def of(cls, circuit: Circuit, path: Path) -> "Question":
        """Return the question that a circuit answers, as its file says.

        Raises:
            RunDirectoryError: It does not say of which task and model it is, or cannot be read.
        """
        settings = settings_of(circuit)
        missing = [name for name in _NEEDED if name not in settings]
        if missing:
            raise RunDirectoryError(
                f"{path} does not say of which model and task it is (it has no {missing[0]!r}), "
                "and what its components do cannot be measured without; give a run directory, or "
                "a circuit file with its origin"
            )
        try:
            found: Question = from_json(cls, settings, "its origin")
        except ValueError as error:
            raise RunDirectoryError(
                f"the origin in {path} cannot be used ({error}); give a run directory"
            ) from None
        return found

    def validate(self) -> None:
        """Check every name and number before anything is loaded.

        Raises:
            CircuitfindError: One of them is unknown or impossible; the message lists the choices.
        """
        task = find_task(self.task)
        if self.system is not None:
            task.require_chat()
        if self.metric is not None:
            find_metric(self.metric)
        require_ablation(self.ablation)
        if self.places is not None:
            require_placing(self.places)
        require_crossing(crossing=self.crossing, places=self.places, split_qkv=self.split_qkv)
        if self.neurons is not None or self.latents is not None:
            require_units(self.neurons, self.latents, self.ranked_by)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ModelError(
                f"no number type named {quoted(self.dtype)}; choose one of {', '.join(DTYPES)}"
            )
        if self.device.partition(":")[0] not in DEVICES:
            raise ModelError(
                f"no device named {quoted(self.device)}; choose {' or '.join(DEVICES)}"
            )
        require_fields(self)

    def pinned(self: Asked) -> Asked:
        """Return the same question in a form that means the same everywhere and later on.

        Files are named by their absolute path, the task's file also by its content, and what was
        not given has its default.
        """
        return self.located().completed()

    def located(self: Asked) -> Asked:
        """Return the same question with files named by absolute path and content."""
        file = task_file(self.task)
        spans = None if self.places is None else spans_file(self.places)
        latents = None if self.latents in (None, EMBEDDED) else path_of(self.latents)
        constants = constants_file(self.ablation)
        return replace(
            self,
            task=self.task if file is None else str(file.resolve()),
            task_digest=None if file is None else digest(file),
            model=located_model(self.model),
            places=self.places if spans is None else str(spans.resolve()),
            ablation=self.ablation if constants is None else str(constants.resolve()),
            # One that is not there is refused elsewhere.
            ablation_digest=digest(constants) if constants and constants.is_file() else None,
            latents=self.latents if latents is None else str(latents.resolve()),
        )

    def problem(
        self, model: ResidualModel, *, seed: int | None = None, graph: Graph | None = None
    ) -> Problem:
        """Build the problem.

        Args:
            model: The loaded model.
            seed: Fixes other prompts than the question's own. A metric that needs a direction takes
                it from the question's own prompts in any case.
            graph: Which edges to search, where that is known; by default what the question says.

        Raises:
            CircuitfindError: The task cannot be had, or the parts do not fit together.
        """
        task = find_task(self.task)
        prompts = own = self._placed(self.written(model), graph)
        if seed is not None:
            prompts = self._placed(self.written(model, seed), graph, own)
        elif self.resample is not None:
            drawn = np.random.default_rng([self.seed, self.resample])
            n = own.n_prompts
            prompts = own.select(own.rows_of(drawn.integers(0, n, n).tolist()))
        latents = None if self.latents is None else dictionaries_for(model, self.latents)
        chosen = _metric(self.metric, task.metric, model, own)
        default = chosen if self.metric is None else None

        def of(prompts: PromptPairs, model: ResidualModel, graph: Graph) -> Problem:
            ablation = ablation_of(self.ablation, model, graph)
            return assemble(model, prompts, chosen, ablation, graph=graph, default_metric=default)

        if graph is not None:
            model = model if latents is None else with_dictionaries(model, latents)
            return of(prompts, model, graph)
        graph = heads_and_mlps(
            model.shape, merge_qkv=not self.split_qkv, split_embedding=self.split_embedding
        )
        graph = graph if own.places is None else graph.at_places(own.places.names)
        if self.crossing and own.places is not None:
            graph = graph.crossing(own.places.moves(causal=model.causal))
        if self.neurons is not None or latents is not None:
            require_no_constants(constants_file(self.ablation))
            ranked = with_units(
                of(own, model, graph),
                neurons=self.neurons,
                latents=latents,
                shortlist=self.shortlist,
                ranked_by=self.ranked_by,
            )
            model, graph = ranked.model, ranked.graph
        return of(prompts, model, graph)

    def written(self, model: ResidualModel, seed: int | None = None) -> PromptPairs:
        """Return the prompts that the task writes, the question's own or those of a seed."""
        seed = self.seed if seed is None else seed
        write = find_task(self.task).write_prompts
        return write(model.vocabulary, self.n_prompts, seed, system=self.system)

    def _placed(
        self, prompts: PromptPairs, graph: Graph | None, own: PromptPairs | None = None
    ) -> PromptPairs:
        """Return prompts with the question's places: those of a graph, or of its own prompts."""
        if self.places is None:
            return prompts
        if own is not None and spans_file(self.places):
            raise PromptError(
                f"the spans in {self.places} are those of the prompts of seed {self.seed}; choose "
                "places named or each for others"
            )
        names = None if own is None or own.places is None else own.places.names
        return placed(prompts, self.places, names if graph is None else graph.places)

    def held_out(
        self,
        model: ResidualModel,
        graph: Graph | None = None,
        tell: Callable[[str], None] = lambda message: None,
    ) -> Problem | None:
        """Build the same problem with prompts of another seed, without any of the question's own.

        Args:
            model: The loaded model.
            graph: Its graph, where that is known.
            tell: Called with the reason where there are none.

        Returns:
            The problem; None for a task file, which has the same prompts for every seed, where the
            task cannot write others, or where fewer than half of them are others.
        """
        if task_file(self.task) is not None:
            return None
        try:
            found = self.problem(model, seed=self.seed + _HELD_OUT_SEED, graph=graph)
        except (TaskError, PromptError) as error:
            tell(f"there are no held-out prompts: {error}")
            return None
        own = self.written(model)
        prompts, n = found.prompts, found.prompts.n_prompts
        unseen = prompts.missing_from(own)
        if len(unseen) < n / 2:
            tell(
                f"there are no held-out prompts: of {n} with another seed, {n - len(unseen)} are "
                "among those of the search"
            )
            return None
        if len(unseen) == n:
            return found
        return replace(found, prompts=prompts.select(prompts.rows_of(unseen)))


def require_crossing(*, crossing: bool, places: object, split_qkv: bool) -> None:
    """Refuse moves from place to place where no places, or no queries, are told apart.

    Raises:
        PromptError: The message says what is missing.
    """
    if crossing and places is None:
        raise PromptError("crossing tells moves between places apart; give places too (--places)")
    if crossing and not split_qkv:
        raise PromptError(
            "crossing tells moves by queries, keys and values apart; leave out --merge-qkv"
        )


def make_problem(
    model: ResidualModel,
    task: str | PromptPairs,
    *,
    n_prompts: int = 64,
    seed: int = 0,
    system: str | None = None,
    metric: str | Metric | None = None,
    ablation: Ablation | Path | str = "resample",
    graph: Graph | None = None,
    places: Places | str | None = None,
    crossing: bool = False,
    neurons: str | Sequence[int] | None = None,
    latents: Sequence[Dictionary] | str | None = None,
    shortlist: int = SHORTLIST,
    ranked_by: str = RANKED_BY,
) -> Problem:
    """Put a problem together from a task's name, or from prompts of your own.

    Args:
        model: What `load_model` returned.
        task: A task's name, the path of a .jsonl or .csv file, or prompts.
        n_prompts: How many pairs to write.
        seed: Fixes the pairs.
        system: The system prompt of conversations with a chat model, empty for none; by default
            that of the task's file, or of the model's chat template.
        metric: A metric or its name; by default the task's own, or `kl` for prompts. Patching
            (`patch`, `path_patch`, ...) measures the logit difference unless one is given here,
            where every prompt has right and wrong answers.
        ablation: What a cut edge carries, the name of it, or the path of a file of constants.
        graph: Which edges to search; by default all, with q, k and v apart.
        places: The places that edges are told apart by: `named`, `each`, `spans` or `Places` of
            your own; by default an edge acts at all positions.
        crossing: Whether the moves inside attention from place to place are edges too; only with
            places.
        neurons: Layers whose neurons may be writers: numbers, text such as `3-5,8`, or `all`; by
            default an MLP writes as a whole.
        latents: Dictionaries whose latents may be writers (`load_dictionaries`), the path of their
            directory, or `zoo` for those that ship with the package.
        shortlist: How many neurons or latents become writers, those with the largest scores.
        ranked_by: `eap` or `eap-ig`, and maybe rules for their gradients: `eap:gim`.

    Raises:
        CircuitfindError: A name is unknown, or the parts do not fit together.
    """
    require(n_prompts=n_prompts, seed=seed)
    require_parts(model=model)
    default = "kl"
    if isinstance(task, str):
        found = find_task(task)
        default = found.metric
        task = found.write_prompts(model.vocabulary, n_prompts, seed, system=system)
    require_parts(prompts=task)
    if places is not None:
        task = placed(task, places, graph.places if graph is not None and graph.places else None)
        if task.places is not None and (graph is None or not graph.places):
            graph = (graph or heads_and_mlps(model.shape)).at_places(task.places.names)
    if crossing and (graph is None or not graph.moves):
        require_crossing(crossing=crossing, places=places, split_qkv=True)
        assert graph is not None and task.places is not None
        graph = graph.crossing(task.places.moves(causal=model.causal))
    chosen = _metric(metric, default, model, task)
    unchosen = chosen if metric is None else None
    if isinstance(ablation, str | Path):
        ablation = ablation_of(str(ablation), model, graph or heads_and_mlps(model.shape))
    problem = assemble(model, task, chosen, ablation, graph=graph, default_metric=unchosen)
    if neurons is None and latents is None:
        return problem
    known = None if latents is None else dictionaries_for(model, latents)
    return with_units(
        problem, neurons=neurons, latents=known, shortlist=shortlist, ranked_by=ranked_by
    )


def _metric(
    metric: str | Metric | None, default: str, model: ResidualModel, prompts: PromptPairs
) -> Metric:
    """Return a metric by its name, with the direction that it may need."""
    found = find_metric(metric or default) if isinstance(metric, str | None) else metric
    require_parts(metric=found)
    return with_direction(found, model, prompts)


@dataclass
class Models:
    """The models loaded so far: each is loaded once.

    Attributes:
        given: What `load_model` returned or takes, the model of every question, whose name is then
            only what it is called; or such by these names. None where models are loaded by name.
        tell: Called with what a user should know of a model.
        most: How many are kept; the others are freed before another one is loaded.
    """

    given: Any = None
    tell: Callable[[str], None] = lambda message: None
    most: int | None = None
    _loaded: dict[tuple[str, str | None, str], ResidualModel] = field(default_factory=dict)

    def of(self, question: Question) -> ResidualModel:
        """Return the model of a question.

        Raises:
            ModelError: It cannot be loaded.
        """
        key = question.model, question.dtype, question.device
        if key not in self._loaded:
            while self.most is not None and len(self._loaded) >= self.most:
                del self._loaded[next(iter(self._loaded))]
            given = self._given(question)
            model = question.model if given is None else given
            if not isinstance(model, ResidualModel):
                model = load_model(model, dtype=question.dtype, device=question.device)
            if (note := precision_note(model)) is not None:
                self.tell(note)
            self._loaded[key] = model
        return self._loaded[key]

    def _given(self, question: Question) -> Any:
        given = self.given
        return given.get(question.model) if isinstance(given, Mapping) else given

    def again(self, question: Question) -> ResidualModel:
        """Return the model that a finished run names.

        Raises:
            ModelError: The name leads to no model; the message says how to give the model instead.
        """
        name = question.model
        try:
            return self.of(question)
        except ModelError as error:
            if self._given(question) is not None or name in ZOO or Path(name).exists():
                raise
            raise ModelError(
                f"{error}; if {name!r} is a model that was given in Python, give it again "
                f"(model=...), or save it with its tokenizer (save_pretrained) as the directory "
                f"{name!r} here"
            ) from None


def problem_again(circuit: Circuit, path: Path, models: Models, *, device: str) -> Problem:
    """Build the problem that a circuit was found on, from what its file says.

    Args:
        circuit: The circuit.
        path: Where it was read, for messages.
        models: The models loaded so far.
        device: Where to compute.

    Raises:
        RunDirectoryError: Its file does not say of which task and model it is, or the model or the
            prompts have changed since.
        CircuitfindError: The task or the model cannot be had.
    """
    question = replace(Question.of(circuit, path), device=device)
    model = models.again(question)
    found = f"the circuit in {path}"
    # Before the problem: the circuit's graph fits no model of another shape.
    require_same(circuit.origin, {"model_fingerprint": model.fingerprint}, found, FOUND_ON)
    # Only circuits from patching may name no metric.
    problem = with_metric(question.problem(model, graph=circuit.graph))
    require_same(circuit.origin, fingerprints(problem), found, FOUND_ON)
    return problem


def held_out_again(
    circuit: Circuit, path: Path, problem: Problem, tell: Callable[[str], None]
) -> Problem | None:
    """Build the problem that a circuit was found on with held-out prompts, where there are any.

    Args:
        circuit: The circuit.
        path: Where it was read, for messages.
        problem: What `problem_again` returned, or the same with another number type.
        tell: Called with the reason where there are none.
    """
    found = Question.of(circuit, path).held_out(problem.model, circuit.graph, tell)
    return None if found is None else with_metric(found)


BEGAN_WITH = "choose another --out, or restore what it began with"
"""What to do where a run's model or prompts are no longer the same."""

FOUND_ON = "restore what it was found on, or search again"
"""What to do where a circuit's model or prompts are no longer the same."""


def located_model(name: str) -> str:
    """Return the absolute path of a model that is a file or a directory; else the name."""
    # No name is the path of this directory, and no model.
    is_path = name not in ("", *ZOO) and Path(name).exists()
    return str(Path(name).resolve()) if is_path else name


def settings_of(circuit: Circuit) -> Mapping[str, Any]:
    """Return what a circuit was found with; circuits from patching have it one level deeper."""
    origin = circuit.origin
    return {**origin["settings"], **origin} if "settings" in origin else origin


def says_its_question(circuit: Circuit) -> bool:
    """Return whether a circuit's file says of which task and model it is."""
    return all(name in settings_of(circuit) for name in _NEEDED)


def question_key(circuit: Circuit) -> str:
    """Return what is the same for circuits that were found on one problem, and for no others.

    Raises:
        RunDirectoryError: The circuit's file does not say of which problem.
    """
    known = Question.of(circuit, Path("circuit")).identity
    facts = [circuit.origin.get(name) for name in ("model_fingerprint", "prompts_fingerprint")]
    header = {name: circuit.header()[name] for name in ("shape", "graph")}
    return json.dumps([known, facts, header], sort_keys=True)


def fingerprints(problem: Problem) -> dict[str, str]:
    """Return what tells a model and its prompts from all others: hashes of weights and tokens."""
    found = {
        "model_fingerprint": problem.model.fingerprint,
        "prompts_fingerprint": problem.prompts.fingerprint,
    }
    if problem.model.dictionaries:
        every = sorted(problem.model.dictionaries.items())
        text = " ".join(f"{block} {each.fingerprint}" for block, each in every)
        found["dictionaries_fingerprint"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    if problem.ablation.constants is not None:
        found["constants_fingerprint"] = weights_fingerprint(problem.ablation.constants)
    return found


def what_changed(there: Mapping[str, Any], now: Mapping[str, str], of: str) -> str:
    """Return what changed since a run, model or prompts: `the model of the run in X changed since`.

    Args:
        there: What a file says, fingerprints among it; one that is missing is not compared.
        now: The fingerprints as they are now.
        of: What the file is about.

    Returns:
        A sentence without its full stop; empty where nothing changed.
    """
    changed = [name for name, value in now.items() if there.get(name, value) != value]
    parts = " and the ".join(name.removesuffix("_fingerprint") for name in changed)
    return f"the {parts} of {of} changed since" if changed else ""


def require_same(there: Mapping[str, Any], now: Mapping[str, str], of: str, advice: str) -> None:
    """Refuse a model, and prompts, that are not what they were.

    Raises:
        RunDirectoryError: One of them changed; the message ends with the advice.
    """
    if changed := what_changed(there, now, of):
        raise RunDirectoryError(f"{changed}; {advice}")
