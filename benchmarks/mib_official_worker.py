"""Measure a ranking with the code of MIB's circuit track, or as its protocol is described.

    python mib_official_worker.py FOLDER official|described raw|processed

Runs in an environment of its own, with that code on its path; see `mib_official.py`. Prompts are
given by their tokens, so the one function that would tokenise texts is replaced. Prints one JSON
object.
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
import transformers
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import (
    convert_gpt2_weights,
    convert_llama_weights,
)


def main() -> None:
    """Measure by value and by size, and print."""
    folder, how, weights = Path(sys.argv[1]), *sys.argv[2:]
    prompts = json.loads((folder / "prompts.json").read_text())
    with redirect_stdout(sys.stderr):
        model = load(folder)
        if weights == "processed":
            model.process_weights_(center_writing_weights=model.cfg.normalization_type == "LN")
        found = {"official": official, "described": described}[how](model, folder, prompts)
    print(json.dumps(found))


def official(model, folder, prompts):
    """Run the benchmark's code."""
    from eap import evaluate
    from eap.graph import Graph
    from MIB_circuit_track.evaluation import evaluate_area_under_curve

    batch = prompts["clean"], prompts["corrupted"], torch.tensor(prompts["answers"])
    evaluate.tokenize_plus = lambda model, texts, *args: tokens_of(texts)
    found = {}
    for by in ("value", "size"):
        graph = Graph.from_json(str(folder / "importances.json"))
        result = evaluate_area_under_curve(
            model, graph, [batch], metric, quiet=True, absolute=by == "size"
        )
        found[by] = {"cpr": result[1], "cmd": result[2], "f": result[4]}
    return found


def described(model, folder, prompts):
    """Run the evaluation of the tests."""
    from tests.oracles.mib import SHARES, Official

    answers = torch.tensor(prompts["answers"])
    clean, corrupted = (torch.tensor(prompts[name]) for name in ("clean", "corrupted"))
    known = Official(model, clean, corrupted, answers[:, 0], answers[:, 1])
    edges = json.loads((folder / "importances.json").read_text())["edges"]
    scores = {name: said["score"] for name, said in edges.items()}
    found = {}
    for by in ("value", "size"):
        f = torch.tensor(known.curve(scores, signed=by == "value"), dtype=torch.float64)
        x = torch.tensor(SHARES, dtype=torch.float64)
        areas = (float(torch.trapezoid(values, x)) for values in (f, (1 - f).abs()))
        found[by] = {**dict(zip(("cpr", "cmd"), areas, strict=True)), "f": f.tolist()}
    return found


def tokens_of(texts):
    """Return tokens, the attention mask, lengths and the number of positions."""
    tokens = torch.tensor(texts)
    mask = torch.ones_like(tokens)
    return tokens, mask, mask.sum(1), tokens.shape[1]


def metric(logits, clean_logits, lengths, answers):
    """Return the logit difference of each prompt."""
    rows = torch.arange(len(logits))
    last = logits[rows, lengths - 1]
    return last[rows, answers[:, 0]] - last[rows, answers[:, 1]]


def load(folder: Path) -> HookedTransformer:
    """Load the weights into the class that the benchmark takes."""
    hugging_face = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager"
    )
    sizes = hugging_face.config
    shape = _gpt2(sizes) if sizes.model_type == "gpt2" else _llama(sizes)
    config = HookedTransformerConfig(
        **shape,
        d_vocab=sizes.vocab_size,
        use_attn_result=True,
        use_split_qkv_input=True,
        use_hook_mlp_in=True,
        device="cpu",
    )
    convert = convert_gpt2_weights if sizes.model_type == "gpt2" else convert_llama_weights
    model = HookedTransformer(config)
    model.load_state_dict(convert(hugging_face, config), strict=False)
    model.cfg.ungroup_grouped_query_attention = True
    return model.eval()


def _gpt2(sizes):
    return {
        "n_layers": sizes.n_layer,
        "n_heads": sizes.n_head,
        "d_model": sizes.n_embd,
        "d_head": sizes.n_embd // sizes.n_head,
        "d_mlp": 4 * sizes.n_embd,
        "n_ctx": sizes.n_positions,
        "act_fn": "gelu_new",
        "normalization_type": "LN",
        "eps": sizes.layer_norm_epsilon,
    }


def _llama(sizes):
    d_head = sizes.hidden_size // sizes.num_attention_heads
    return {
        "n_layers": sizes.num_hidden_layers,
        "n_heads": sizes.num_attention_heads,
        "n_key_value_heads": sizes.num_key_value_heads,
        "d_model": sizes.hidden_size,
        "d_head": d_head,
        "d_mlp": sizes.intermediate_size,
        "n_ctx": sizes.max_position_embeddings,
        "act_fn": "silu",
        "gated_mlp": True,
        "normalization_type": "RMS",
        "final_rms": True,
        "eps": sizes.rms_norm_eps,
        "positional_embedding_type": "rotary",
        "rotary_dim": d_head,
        "rotary_adjacent_pairs": False,
    }


if __name__ == "__main__":
    main()
