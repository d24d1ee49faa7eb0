"""The greater-than circuit of GPT-2 small.

Hanna et al., 2023, "How does GPT-2 compute greater-than?", https://arxiv.org/abs/2305.00586, as
encoded by Conmy et al., 2023, https://arxiv.org/abs/2304.14997, with their paths (`edges.py`);
`edges` is its size in their graph.
"""

_EARLY, _LATE = ("m0", "m1", "m2", "m3"), ("m8", "m9", "m10", "m11")
_BEFORE_MIDDLE = ("m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")

KNOWN_CIRCUIT = {
    "model": "gpt2",
    "source": "Hanna et al. 2023, arXiv 2305.00586, as encoded by Conmy et al. 2023",
    "heads": {
        "early": ("a0.h3", "a0.h5"),
        "early, read by MLPs": ("a0.h1",),
        "middle": ("a5.h5", "a6.h1", "a6.h9", "a7.h10", "a8.h11", "a9.h1"),
    },
    "mlps": (*_EARLY, *_LATE),
    "paths": (
        ("embed", "early", "qkv"),
        ("embed", "early, read by MLPs", "qkv"),
        ("embed", _EARLY, ""),
        ("early", "middle", "qkv"),
        ("early, read by MLPs", "middle", "qkv"),
        ("early, read by MLPs", _EARLY, ""),
        (_EARLY, _EARLY, ""),
        (_EARLY, "middle", "qkv"),
        ("middle", _LATE, ""),
        ("middle", "logits", ""),
        (_LATE, _LATE, ""),
        (_LATE, "logits", ""),
        # The paper leaves the queries of the middle heads clean.
        (_BEFORE_MIDDLE, _BEFORE_MIDDLE, ""),
        (_BEFORE_MIDDLE, "middle", "q"),
    ),
    "edges": 262,
}
