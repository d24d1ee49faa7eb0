"""Copies of trained models: the same function with heads in another order, or none at all."""

from collections.abc import Sequence

import torch
import transformers

from circuitfind.models.loading import load_model
from circuitfind.models.zoo import zoo_path

Orders = list[list[int]]
"""For each layer, which old head stands at each new place."""


def network_of(name: str):
    return transformers.AutoModelForCausalLM.from_pretrained(zoo_path(name))


def loaded(name: str, network):
    return load_model(network, tokenizer=transformers.AutoTokenizer.from_pretrained(zoo_path(name)))


def with_heads_reordered(name: str, seed: int):
    """Return the model with heads (and key/value heads with those that share them) reordered."""
    network, generator = network_of(name), torch.Generator().manual_seed(seed)
    orders: Orders = []
    with torch.no_grad():
        for block in (
            network.transformer.h if name.startswith(("gpt", "ioi")) else network.model.layers
        ):
            reorder = _reorder_gpt2 if hasattr(block, "attn") else _reorder_llama
            orders.append(reorder(network.config, block, generator))
    return loaded(name, network), orders


def with_weights_shuffled(name: str, seed: int):
    """Return a model whose matrices have the same numbers at random places."""
    network, generator = network_of(name), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                order = torch.randperm(weight.numel(), generator=generator)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return loaded(name, network)


def _reorder_gpt2(config, block, generator) -> list[int]:
    order = torch.randperm(config.n_head, generator=generator).tolist()
    rows = _rows(order, config.n_embd // config.n_head)
    columns = torch.cat([rows + part * config.n_embd for part in range(3)])
    attention = block.attn
    attention.c_attn.weight.copy_(attention.c_attn.weight[:, columns])
    attention.c_attn.bias.copy_(attention.c_attn.bias[columns])
    attention.c_proj.weight.copy_(attention.c_proj.weight[rows])
    return order


def _reorder_llama(config, block, generator) -> list[int]:
    size = config.num_attention_heads // config.num_key_value_heads
    groups = torch.randperm(config.num_key_value_heads, generator=generator).tolist()
    order = [
        group * size + place
        for group in groups
        for place in torch.randperm(size, generator=generator).tolist()
    ]
    width = config.hidden_size // config.num_attention_heads
    queries, keys = _rows(order, width), _rows(groups, width)
    attention = block.self_attn
    for part, rows in (
        (attention.q_proj, queries),
        (attention.k_proj, keys),
        (attention.v_proj, keys),
    ):
        part.weight.copy_(part.weight[rows])
    attention.o_proj.weight.copy_(attention.o_proj.weight[:, queries])
    return order


def _rows(order: Sequence[int], width: int) -> torch.Tensor:
    return torch.cat([torch.arange(width) + head * width for head in order])
