"""What identifies a measurement by patching: equal configurations give the same result."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circuitfind.errors import MethodError
from circuitfind.files import read_bytes
from circuitfind.limits import require
from circuitfind.metrics import find_metric
from circuitfind.models.zoo import ZOO
from circuitfind.patching.circuits import DEFAULT_FAITHFULNESS
from circuitfind.patching.pairs import require_mode
from circuitfind.patching.result import DEFAULT_THRESHOLD
from circuitfind.patching.sites import find_sites
from circuitfind.tasks import find_task, task_file

_OF_THE_REPORT = ("threshold", "annotate", "discover", "edge_threshold", "target_faithfulness")


@dataclass(frozen=True)
class PatchConfig:
    """What is patched and measured.

    Attributes:
        task: Name of a task, or the path of a .jsonl or .csv file.
        model: What `load_model` takes, as text.
        sites: What a sweep patches; None for path patching.
        positions: Where; None for the default.
        layers: Which layers a sweep patches, such as `3-5,8`; None for all.
        heads: Which heads, likewise.
        senders: Where paths begin; None for all.
        receivers: Where they end; None for all.
        via: What they lead through.
        together: Whether all edges from the senders into the receivers are patched at once.
        mode: Which run is patched with which.
        metric: Name of the metric; None for the logit difference where the prompts have right and
            wrong answers, and for the task's own where they have not.
        n_prompts: How many pairs.
        seed: Fixes the pairs.
        dtype: Number type of the weights; None means that of the file.
        device: Where to compute.
        threshold: Smallest effect that is significant.
        annotate: Whether heatmaps give every effect in figures.
        discover: Whether to find and draw the circuit of what is significant.
        edge_threshold: Smallest effect of its edges; None for the default, which is lowered until
            the circuit is as faithful as wanted.
        target_faithfulness: The wanted faithfulness of the circuit.
    """

    task: str
    model: str
    sites: str | None = None
    positions: str | None = None
    layers: str | None = None
    heads: str | None = None
    senders: tuple[str, ...] | None = None
    receivers: tuple[str, ...] | None = None
    via: tuple[str, ...] = ()
    together: bool = False
    mode: str = "denoising"
    metric: str | None = None
    n_prompts: int = 64
    seed: int = 0
    dtype: str | None = None
    device: str = "cpu"
    threshold: float = DEFAULT_THRESHOLD
    annotate: bool = False
    discover: bool = False
    edge_threshold: float | None = None
    target_faithfulness: float = DEFAULT_FAITHFULNESS

    def validate(self) -> None:
        """Check every name before anything is loaded.

        Raises:
            CircuitfindError: One is unknown or impossible; the message lists the choices.
        """
        require(
            n_prompts=self.n_prompts,
            seed=self.seed,
            patch_threshold=self.threshold,
            edge_threshold=self.edge_threshold,
            target_faithfulness=self.target_faithfulness,
        )
        find_task(self.task)
        require_mode(self.mode)
        if self.metric is not None:
            find_metric(self.metric)
        if self.sites is not None:
            find_sites(self.sites)
        if self.together and (self.via or not self.senders or not self.receivers):
            raise MethodError(
                "edges are patched together from named writers into named readers: give --from and "
                "--to, and no --via"
            )

    @property
    def kind(self) -> str:
        return "path-patch" if self.sites is None else "patch"

    @property
    def report_settings(self) -> dict[str, Any]:
        """What is made of a measurement, as plain JSON values."""
        return {name: getattr(self, name) for name in _OF_THE_REPORT}

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for two measurements to be the same, as plain JSON values."""
        values = {"kind": self.kind, **asdict(self)}
        for name in ("device", *_OF_THE_REPORT):
            del values[name]
        file, model = task_file(self.task), Path(self.model)
        if file is not None:
            values["task"] = str(file.resolve())
            values["task_digest"] = hashlib.sha256(read_bytes(file)).hexdigest()[:16]
        if self.model not in ZOO and model.exists():
            values["model"] = str(model.resolve())
        identity: dict[str, Any] = json.loads(json.dumps(values))
        return identity
