"""The docstring circuit of attn-only-4l, a four-layer attention-only model.

Heimersheim and Janiak, 2023, "A circuit for Python docstrings in a 4-layer attention-only
transformer", as encoded by Conmy et al., 2023, https://arxiv.org/abs/2304.14997. `edges` is its
size in their graph, which splits some of the connections below.
"""

KNOWN_CIRCUIT = {
    "model": "attn-only-4l",
    "source": "Heimersheim & Janiak 2023, as encoded by Conmy et al. 2023",
    "heads": {"all": ("a0.h5", "a1.h2", "a1.h4", "a2.h0", "a3.h0", "a3.h6")},
    "connections": (
        "a0.h5->a1.h4.v",
        "embed->a0.h5.v",
        "embed->a2.h0.q",
        "a0.h5->a2.h0.q",
        "embed->a2.h0.k",
        "a0.h5->a2.h0.k",
        "a1.h4->a2.h0.v",
        "embed->a1.h4.v",
        "embed->a1.h2.q",
        "embed->a1.h2.k",
        "a0.h5->a1.h2.q",
        "a0.h5->a1.h2.k",
        "a3.h0->logits",
        "a3.h6->logits",
        "a1.h4->a3.h0.q",
        "a1.h4->a3.h6.q",
        "embed->a3.h0.v",
        "embed->a3.h6.v",
        "a0.h5->a3.h0.v",
        "a0.h5->a3.h6.v",
        "a2.h0->a3.h0.k",
        "a2.h0->a3.h6.k",
        "a1.h2->a3.h0.k",
        "a1.h2->a3.h6.k",
    ),
    "edges": 37,
}
