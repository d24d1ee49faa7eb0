"""Which run is patched, and which one the patches come from.

Denoising puts clean activations into the corrupted run and finds what suffices to restore the
behaviour; noising puts corrupted ones into the clean run and finds what is needed for it. An
interchange (Geiger et al. 2021, arXiv 2106.02997) puts in those of another prompt of the task, so
that the model should give that prompt's answer instead.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from circuitfind.errors import MethodError, PromptError
from circuitfind.patching.metric import with_metric
from circuitfind.patching.result import MODES, Mode
from circuitfind.problem import Problem
from circuitfind.prompts import NO_TOKEN, PromptPairs


def require_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        MethodError: The message lists the known ones.
    """
    if mode not in MODES:
        raise MethodError(f"no mode named {mode!r}; choose one of {', '.join(MODES)}")


def posed(problem: Problem, mode: Mode, partners: Sequence[int] | None = None) -> Problem:
    """Return the problem that a mode measures: the prompts that it exchanges, and the metric.

    Raises:
        MethodError: The mode is unknown, or partners are given to one that has none.
        PromptError: A prompt has no partner.
    """
    require_mode(mode)
    problem = with_metric(problem)
    if mode != "interchange":
        if partners is not None:
            raise MethodError(f"partners belong to the mode interchange, not to {mode}; leave out")
        return problem
    prompts = problem.prompts
    chosen = partners_of(prompts) if partners is None else torch.tensor(list(partners))
    return replace(problem, prompts=interchanged(prompts, chosen.to(prompts.clean.device)))


def partners_of(prompts: PromptPairs) -> Int[Tensor, " batch"]:
    """Return for each prompt another of its length and named positions, to be patched from.

    The next one of its template, or where there is none the next one of any template.

    Raises:
        PromptError: A prompt is the only one of its kind.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for row in range(len(prompts)):
        alike.setdefault(_kind(prompts, row), []).append(row)
    partners = torch.zeros(len(prompts), dtype=torch.long)
    for rows in alike.values():
        for place, row in enumerate(rows):
            partners[row] = _partner(prompts, row, [*rows[place + 1 :], *rows[:place]])
    return partners


def _kind(prompts: PromptPairs, row: int) -> tuple[int, ...]:
    places = (int(index[row]) for index in prompts.positions.values())
    return (int(prompts.lengths[row]), *places)


def _partner(prompts: PromptPairs, row: int, others: list[int]) -> int:
    differing = [n for n in others if not torch.equal(prompts.clean[n], prompts.clean[row])]
    if not differing:
        raise PromptError(
            f"{prompts.place(row)} has no other of its length and named positions to interchange "
            "with; give more prompts, or another mode"
        )
    template = prompts.template
    same = [n for n in differing if template is not None and template[n] == template[row]]
    return (same or differing)[0]


def interchanged(prompts: PromptPairs, partners: Int[Tensor, " batch"]) -> PromptPairs:
    """Return pairs of clean prompts: each with its partner in place of the corrupted prompt.

    The partner's right answers become the wrong ones, so that a logit difference says which of the
    two prompts the model answers.

    Raises:
        PromptError: There is not one partner per prompt, or one is of another length or itself.
    """
    if len(partners) != len(prompts) or not bool(
        ((partners >= 0) & (partners < len(prompts))).all()
    ):
        raise PromptError(
            f"{len(partners)} partners for {len(prompts)} prompts; give each prompt the number of "
            "another one"
        )
    unfit = (prompts.lengths[partners] != prompts.lengths) | (
        prompts.clean[partners] == prompts.clean
    ).all(dim=1)
    if bool(unfit.any()):
        row = int(unfit.nonzero()[0])
        raise PromptError(
            f"{prompts.place(row)} cannot be interchanged with "
            f"{prompts.place(int(partners[row]))}: partners have the same length and differ"
        )
    return replace(
        prompts,
        corrupted=prompts.clean[partners],
        wrong_answers=torch.where(
            prompts.step_is_real[..., None], prompts.answers[partners], NO_TOKEN
        ),
    )
