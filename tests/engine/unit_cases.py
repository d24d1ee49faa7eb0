"""MLPs and attention taken apart in all ways there are, in tiny models of two layers."""

from typing import Any

from circuitfind.graph import Units
from tests.oracles.dictionaries import random_dictionary

NEURONS, LATENTS = (0, 3, 17, 40), (1, 4, 7, 10)


def neurons(*layers: int) -> dict[str, Any]:
    return {"units": tuple(Units(layer, "neuron", NEURONS) for layer in layers)}


def latents(
    *layers: int, made: Any = None, listed: tuple[int, ...] = LATENTS, **units: Any
) -> dict[str, Any]:
    return {
        "units": tuple(Units(layer, "latent", listed, **units) for layer in layers),
        "dictionaries": tuple(random_dictionary(layer, **(made or {})) for layer in layers),
    }


def joined(*cases: dict[str, Any]) -> dict[str, Any]:
    """Return the units and dictionaries of several layers together."""
    keys = ("units", "dictionaries")
    return {key: tuple(each for case in cases for each in case.get(key, ())) for key in keys}


def at_layer(layer: int, case: dict[str, Any]) -> dict[str, Any]:
    """Return what a case has in one layer."""
    return {
        "units": tuple(units for units in case["units"] if units.layer == layer),
        "dictionaries": tuple(d for d in case.get("dictionaries", ()) if d.site.layer == layer),
    }


def stream(site: str, *layers: int) -> dict[str, Any]:
    made = {"reads": f"hook_{site}", "writes": f"hook_{site}"}
    return latents(*layers, made=made, listed=(1, 7), error="live", of=site)


SKIP = {"skip": True}
NORMALIZED = {"reads": "ln2.hook_normalized"}
TOPK = {"activation": "topk", "skip": True}
SAE = {"reads": "hook_mlp_out"}
ATTENTION = {"reads": "hook_attn_out", "writes": "hook_attn_out"}
OF_Z = {"reads": "attn.hook_z", "writes": "attn.hook_z", "activation": "topk"}


def of_attention(*layers: int, made: Any = None) -> dict[str, Any]:
    return latents(*layers, made=made or ATTENTION, error="live", of="attention")


CASES = {
    "neurons": neurons(0, 1),
    "transcoder": latents(0, 1, apart=True, error="fixed"),
    "jumprelu": latents(
        0, 1, made={"activation": "jumprelu", "skip": True}, apart=True, skip=True, error="fixed"
    ),
    "normalized": latents(0, 1, made=NORMALIZED, apart=True, error="fixed"),
    "together": latents(0, 1, made=SKIP, skip=True, error="fixed"),
    "topk": latents(0, 1, made=TOPK, skip=True, error="fixed"),
    "sae": latents(0, 1, made=SAE, error="live"),
    "mixed": joined(neurons(0), latents(1, apart=True, error="fixed")),
    "late": latents(1, apart=True, error="fixed"),
    "attention": of_attention(0, 1),
    "attention-z": of_attention(0, 1, made=OF_Z),
    "both": joined(of_attention(1), neurons(0, 1)),
    "resid-pre": stream("resid_pre", 0, 1),
    "resid-post": stream("resid_post", 0),
    "streams": joined(stream("resid_post", 0, 1), stream("resid_pre", 1), of_attention(1)),
    "resid-mid": joined(stream("resid_mid", 0), neurons(1)),
    "after-sae": joined(latents(0, made=SAE, error="live"), neurons(1)),
}
"""Units and dictionaries, as options of problems."""
