"""Whatever a file holds, reading it gives a dictionary or one line that says what is wrong."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from circuitfind.dictionaries.loading import load_dictionaries
from circuitfind.errors import DictionaryError
from tests.fuzz.damage import damaged_bytes, damaged_json

WRITTEN = Path(__file__).parents[1] / "data" / "dictionaries"
FILES = {
    "saelens/standard": "cfg.json",
    "saelens/topk_before_6": "cfg.json",
    "saelens/gated": "sae_weights.safetensors",
    "circuit-tracer/jumprelu": "config.yaml",
    "circuit-tracer/skip": "layer_0.safetensors",
    "gemma-scope/gemma-scope-tiny-res": "layer_1/width_16/average_l0_5/params.npz",
    "gemma-scope-2/transcoder_affine": "params.safetensors",
    "sparsify/layers.2.mlp": "cfg.json",
    "sparsify/layers.1.mlp": "sae.safetensors",
}
N_DAMAGES = 80


@pytest.mark.parametrize("source", FILES)
def test_a_damaged_file_gives_a_dictionary_or_one_line(source, tmp_path):
    folder = tmp_path / Path(source).name
    shutil.copytree(WRITTEN / source, folder)
    path = folder / FILES[source]
    whole = path.read_bytes()
    rng, refused = random.Random(0), 0
    for number in range(N_DAMAGES):
        as_values = path.suffix == ".json" and number % 2
        content = damaged_json(json.loads(whole), rng) if as_values else damaged_bytes(whole, rng)
        path.write_bytes(content)
        try:
            for one in load_dictionaries(folder):
                latents = one.encode(torch.ones(2, one.d_in, dtype=one.encoder.dtype))
                assert latents.shape == (2, one.n_latents)
        except DictionaryError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 1000
            refused += 1
    assert refused > N_DAMAGES / 4
