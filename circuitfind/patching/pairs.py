"""The base run, which is patched, and the source run, from which the patches come.

Denoising puts clean activations into the corrupted run and finds what suffices to restore the
behaviour; noising puts corrupted ones into the clean run and finds what is needed for it. An
interchange (Geiger et al. 2021, arXiv 2106.02997) puts in those of another prompt, so that the
model should give that prompt's answer instead: across the pair, both ways, or within a kind, where
clean prompts take activations of other clean prompts.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from circuitfind.ablations import RESAMPLE
from circuitfind.errors import MethodError, PromptError, quoted
from circuitfind.patching.metric import with_metric
from circuitfind.patching.result import MODES, Mode
from circuitfind.problem import Problem
from circuitfind.prompts import NO_TOKEN, PromptPairs

_NO_PARTNER = -1


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
        MethodError: The mode is unknown, or partners are given to one that has none; or under the
            problem's ablation no run of the model is patched from.
        PromptError: A prompt has no partner.
    """
    require_mode(mode)
    problem = with_metric(problem)
    prompts = _with_run_to_patch_from(problem)
    # What is patched in is now that of the corrupted prompts.
    problem = replace(problem, prompts=prompts, ablation=RESAMPLE)
    if mode.startswith("interchange") and prompts.sides is not None:
        raise MethodError(
            f"the mode {mode} exchanges the answers of prompts, and here answers take several "
            "tokens, which belong to the prompts that are run; choose denoising or noising"
        )
    if mode == "interchange-within":
        chosen = partners_of(prompts) if partners is None else torch.tensor(list(partners))
        return replace(problem, prompts=interchanged(prompts, chosen.to(prompts.clean.device)))
    if partners is not None:
        raise MethodError(
            f"partners belong to the mode interchange-within, not to {mode}; leave them out"
        )
    return replace(problem, prompts=both_ways(prompts)) if mode == "interchange" else problem


def _with_run_to_patch_from(problem: Problem) -> PromptPairs:
    """Return the pairs with what the ablation runs the model on as the corrupted prompts."""
    problem.prompts.require_one_length("patching")
    source = problem.ablation.empty_graph(problem.prompts)
    if source is None:
        raise MethodError(
            "patching puts what the model computes on one prompt into its run on another, and "
            f"under the ablation {quoted(problem.ablation.name)} a cut edge carries what no such "
            "run writes; make the problem with ablation='resample'"
        )
    return replace(problem.prompts, corrupted=source)


def both_ways(prompts: PromptPairs) -> PromptPairs:
    """Return every pair twice, the second time with its two prompts and their answers exchanged."""
    n = len(prompts)
    twice = prompts.rows([*range(n), *range(n)])
    turned = (torch.arange(2 * n, device=prompts.clean.device) >= n)[:, None]
    width = max(prompts.answers.shape[-1], prompts.wrong_answers.shape[-1])
    right, wrong = (
        pad(tokens, (0, width - tokens.shape[-1]), value=NO_TOKEN)
        for tokens in (twice.answers, twice.wrong_answers)
    )
    return replace(
        twice,
        clean=torch.where(turned, twice.corrupted, twice.clean),
        corrupted=torch.where(turned, twice.clean, twice.corrupted),
        answers=torch.where(turned[..., None], wrong, right),
        wrong_answers=torch.where(turned[..., None], right, wrong),
    )


def partners_of(prompts: PromptPairs) -> Int[Tensor, " batch"]:
    """Return for each prompt another of its length and named positions, to be patched from.

    The next one of its template that has other right answers, or where there is none the next one
    of any template; -1 for a prompt without any.

    Raises:
        PromptError: No prompt has another.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for row in range(len(prompts)):
        alike.setdefault(_kind(prompts, row), []).append(row)
    partners = torch.full((len(prompts),), _NO_PARTNER)
    for rows in alike.values():
        for place, row in enumerate(rows):
            partners[row] = _partner(prompts, row, [*rows[place + 1 :], *rows[:place]])
    if bool((partners == _NO_PARTNER).all()):
        raise PromptError(
            f"none of the {len(prompts)} prompts has another of its length and named positions "
            "with another right answer, so they cannot be interchanged within a kind; choose the "
            "mode interchange, which exchanges across each pair, or give more prompts"
        )
    return partners


def _kind(prompts: PromptPairs, row: int) -> tuple[int, ...]:
    places = (int(index[row]) for index in prompts.positions.values())
    return (int(prompts.lengths[row]), *places)


def _partner(prompts: PromptPairs, row: int, others: list[int]) -> int:
    # By the same answer the metric cannot tell which of two prompts the model answers.
    told_apart = prompts.answers if bool((prompts.answers != NO_TOKEN).any()) else prompts.clean
    differing = [n for n in others if not torch.equal(told_apart[n], told_apart[row])]
    template = prompts.template
    same = [n for n in differing if template is not None and template[n] == template[row]]
    return [*same, *differing, _NO_PARTNER][0]


def interchanged(prompts: PromptPairs, partners: Int[Tensor, " batch"]) -> PromptPairs:
    """Return pairs of clean prompts: each with its partner in place of the corrupted prompt.

    The partner's right answers become the wrong ones, so that a logit difference says which of the
    two prompts the model answers. Prompts whose partner is -1 are left out.

    Raises:
        PromptError: There is not one partner per prompt, or one is of another length or itself.
    """
    if len(partners) != len(prompts) or not bool(
        ((partners >= _NO_PARTNER) & (partners < len(prompts))).all()
    ):
        raise PromptError(
            f"{len(partners)} partners for {len(prompts)} prompts; give each prompt the number of "
            "another one, or -1 to leave it out"
        )
    paired = (partners != _NO_PARTNER).nonzero().flatten()
    unfit = (prompts.lengths[partners] != prompts.lengths) | (
        prompts.clean[partners] == prompts.clean
    ).all(dim=1)
    if bool(unfit[paired].any()):
        row = int(paired[unfit[paired]][0])
        raise PromptError(
            f"{prompts.source(row)} cannot be interchanged with "
            f"{prompts.source(int(partners[row]))}: partners have the same length and differ"
        )
    kept, others = prompts.rows(paired.tolist()), partners[paired]
    return replace(
        kept,
        corrupted=prompts.clean[others],
        wrong_answers=torch.where(kept.step_is_real[..., None], prompts.answers[others], NO_TOKEN),
    )
