"""SmolLM2-135M-Instruct, a pretrained chat model: what it says, and its search by brute force.

They need `circuitfind models get smollm2` and take minutes.
"""

import random
from itertools import accumulate

import pytest
import torch
from transformers import AutoModelForCausalLM

import circuitfind as cf
from circuitfind.measures import Reference, logit_difference
from circuitfind.models import gguf_files
from circuitfind.models.base import ResidualModel
from circuitfind.models.pretrained import PRETRAINED
from tests.oracles.brute_force import BruteForce

pytestmark = pytest.mark.slow
N_SPOT_CHECKS = 200


@pytest.fixture(scope="module")
def smollm2() -> ResidualModel:
    if not PRETRAINED.get("smollm2").path.is_file():
        pytest.skip("smollm2 is not here; run `circuitfind models get smollm2`")
    return cf.load_model("smollm2")


def test_it_says_what_it_is_known_to_say(smollm2):
    """Its continuation was seen with transformers alone."""
    assert (smollm2.shape.n_layers, smollm2.shape.total("n_heads")) == (30, 270)
    prompt = "When Mary and John went to the store, John gave a drink to"
    tokens = torch.tensor([smollm2.vocabulary.encode(prompt)])
    best = int(smollm2.own_logits(tokens)[0, -1].argmax())
    assert [best] == smollm2.vocabulary.encode(" Mary")


def test_its_refusals_tell_harmful_from_harmless_requests(smollm2):
    prompts = cf.make_problem(smollm2, "refusal", n_prompts=24).prompts
    harmful, harmless = (
        logit_difference(logits, prompts, Reference(logits))
        for logits in (
            prompts.at_steps(smollm2.own_logits(tokens, prompts.real))
            for tokens in (prompts.clean, prompts.corrupted)
        )
    )
    assert (harmful > harmless).all()
    assert float((harmful - harmless).mean()) == pytest.approx(2.22, abs=0.05)


def test_decisions_are_those_of_runs_of_the_whole_model(smollm2):
    problem = cf.make_problem(smollm2, "ioi", n_prompts=4)
    found = cf.discover(problem, "acdc", threshold=0.1)
    graph, prompts = found.circuit.graph, problem.prompts

    path = PRETRAINED.get("smollm2").path
    with gguf_files.opened(path):
        plain = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, attn_implementation="eager", dtype=torch.float32
        ).eval()
    plain.config.use_cache = False  # the oracle calls attention modules again and again
    oracle = BruteForce(plain, "llama", prompts.clean, prompts.corrupted, graph)
    last = (torch.arange(len(prompts.clean)), prompts.steps[:, 0])
    clean = oracle.logits(graph.edge_mask)[last].double().log_softmax(-1)

    def loss(kept: torch.Tensor) -> float:
        here = oracle.logits(kept)[last].double().log_softmax(-1)
        return float((clean.exp() * (clean - here)).sum(-1).mean())

    # What was kept when an edge was tested: all that was not cut before.
    cuts = [() if decision.kept else (decision.edge,) for decision in found.decisions]
    before = [0, *accumulate(map(len, cuts))]
    in_order = [edge for cut in cuts for edge in cut]
    tested = [i for i, decision in enumerate(found.decisions) if decision.reason == "tested"]
    largest = 0.0
    for i in sorted(random.Random(0).sample(tested, N_SPOT_CHECKS)):
        decision = found.decisions[i]
        kept = graph.edge_mask & ~graph.mask_of(in_order[: before[i]])
        after = loss(kept & ~graph.mask_of([decision.edge]))
        effect = after - loss(kept)
        assert decision.effect == pytest.approx(effect, abs=1e-4)
        assert decision.kept == (effect >= 0.1)
        largest = max(largest, abs(decision.effect - effect))
    print(f"{N_SPOT_CHECKS} effects differ by {largest:.2g} nats at most")
