"""The greater-than circuit of GPT-2 small.

Hanna et al., 2023, "How does GPT-2 compute greater-than?", https://arxiv.org/abs/2305.00586, as
encoded by Conmy et al., 2023, https://arxiv.org/abs/2304.14997; `edges` is its size in their graph.
"""

KNOWN_CIRCUIT = {
    "model": "gpt2",
    "source": "Hanna et al. 2023, arXiv 2305.00586, as encoded by Conmy et al. 2023",
    "heads": {
        "all": (
            "a0.h1", "a0.h3", "a0.h5", "a5.h5", "a6.h1", "a6.h9", "a7.h10", "a8.h11", "a9.h1",
        ),
    },
    "mlps": ("m0", "m1", "m2", "m3", "m8", "m9", "m10", "m11"),
    "edges": 262,
}  # fmt: skip
