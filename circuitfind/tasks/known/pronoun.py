"""The gendered-pronoun circuit of GPT-2 small.

Mathwin et al., 2023, "Identifying a Preliminary Circuit for Predicting Gendered Pronouns in GPT-2
Small", as reported by Conmy et al., 2023, https://arxiv.org/abs/2304.14997, appendix K.
"""

KNOWN_CIRCUIT = {
    "model": "gpt2",
    "source": "Mathwin et al. 2023, as reported in Conmy et al. 2023, appendix K",
    "heads": {"all": ("a0.h4", "a4.h3", "a6.h0", "a10.h9", "a9.h7")},
    "mlps": ("m0", "m3", "m5", "m7", "m10", "m11"),
}
