"""Use a Hugging Face model that is already loaded, with prompts and a metric of your own."""

import torch
import transformers

import circuitfind as cf
from circuitfind.models.zoo import zoo_path

path = zoo_path("ioi-small")
tokenizer = transformers.AutoTokenizer.from_pretrained(path)
network = transformers.AutoModelForCausalLM.from_pretrained(path)
model = cf.load_model(network, tokenizer=tokenizer)


def pair(clean: str, corrupted: str, answer: str, wrong: str) -> cf.Pair:
    """Return a pair of prompts with one right and one wrong answer."""
    words = model.vocabulary
    return cf.Pair(
        clean=words.encode(clean),
        corrupted=words.encode(corrupted),
        answers=[[words.answer(answer)]],
        wrong_answers=[[words.answer(wrong)]],
    )


prompts = cf.collate(
    [
        pair(
            "Then, Mary and John went to the store. John gave a drink to",
            "Then, Mary and John went to the store. Tom gave a drink to",
            answer="Mary",
            wrong="John",
        ),
        pair(
            "Then, Tom and Sarah went to the park. Tom gave a ring to",
            "Then, Tom and Sarah went to the park. John gave a ring to",
            answer="Sarah",
            wrong="Tom",
        ),
    ]
)


def confidence(logits: torch.Tensor, prompts: cf.PromptPairs) -> torch.Tensor:
    """Return the probability of the right answer, one number per prompt."""
    probability = logits.softmax(-1).gather(-1, prompts.answers)
    return probability[:, 0, 0]


metric = cf.custom_metric(confidence, name="confidence", unit="probability")
problem = cf.make_problem(model, prompts, metric=metric)
found = cf.discover(problem, "exact", n_edges=20)
for edge in found.circuit.edges[:5]:
    print(edge.name, found.circuit.effect(edge))
