"""The IOI circuit of GPT-2 small.

Wang et al., 2022, "Interpretability in the Wild", https://arxiv.org/abs/2211.00593, figure 2, with
the paths (`edges.py`) that Conmy et al., 2023, https://arxiv.org/abs/2304.14997, take for it;
`edges` is its size in their graph.
"""

KNOWN_CIRCUIT = {
    "model": "gpt2",
    "source": "Wang et al. 2022, arXiv 2211.00593, figure 2",
    "heads": {
        "name mover": ("a9.h9", "a10.h0", "a9.h6"),
        "backup name mover": (
            "a10.h10",
            "a10.h6",
            "a10.h2",
            "a10.h1",
            "a11.h2",
            "a9.h7",
            "a9.h0",
            "a11.h9",
        ),
        "negative name mover": ("a10.h7", "a11.h10"),
        "s-inhibition": ("a7.h3", "a7.h9", "a8.h6", "a8.h10"),
        "induction": ("a5.h5", "a5.h8", "a5.h9", "a6.h9"),
        "duplicate token": ("a0.h1", "a0.h10", "a3.h0"),
        "previous token": ("a2.h2", "a4.h11"),
    },
    # Between roles as in the figure. The MLPs, which the paper never ablates, stand beside them.
    "paths": (
        ("embed", "mlps", ""),
        ("embed", "logits", ""),
        ("mlps", "mlps", ""),
        ("mlps", "logits", ""),
        ("mlps", "heads", "qkv"),
        ("heads", "mlps", ""),
        ("embed", "previous token", "qkv"),
        ("embed", "duplicate token", "qkv"),
        ("embed", "s-inhibition", "q"),
        ("embed", "negative name mover", "kv"),
        ("embed", "name mover", "kv"),
        ("embed", "backup name mover", "kv"),
        ("previous token", "induction", "kv"),
        ("induction", "s-inhibition", "kv"),
        ("duplicate token", "s-inhibition", "kv"),
        ("s-inhibition", "negative name mover", "q"),
        ("s-inhibition", "name mover", "q"),
        ("s-inhibition", "backup name mover", "q"),
        ("negative name mover", "logits", ""),
        ("name mover", "logits", ""),
        ("backup name mover", "logits", ""),
    ),
    "mlps": "all",
    "edges": 1041,
}
