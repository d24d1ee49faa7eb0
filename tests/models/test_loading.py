"""From what a user names to a checked model, or to one clear line."""

import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge

from circuitfind.errors import ModelError, SelfCheckError
from circuitfind.models.loading import load_model
from circuitfind.models.self_check import require_faithful
from circuitfind.models.zoo import ZOO
from circuitfind.models.zoo.training import word_tokenizer
from tests.oracles.checkpoints import D_VOCAB, FAMILIES, build

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
BRIDGED = [name for name, family in FAMILIES.items() if family.bridge_is_right]
HUGGING_FACE = [name for name in BRIDGED if not FAMILIES[name].native]


# ------------------------------------------------------------------------------- what loads


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", BRIDGED)
def test_every_family_passes_its_self_check_in_every_number_type(family, dtype):
    model = load_model(build(family, dtype=DTYPES[dtype], n_layers=2))
    assert model.weights_dtype == DTYPES[dtype]
    assert model.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert model.shape == FAMILIES[family].shape(2)
    assert model.causal == (family != "bidirectional")
    assert model.own_logits(torch.ones(2, 5, dtype=torch.long)).shape == (2, 5, D_VOCAB)


@pytest.mark.parametrize("family", HUGGING_FACE)
def test_a_directory_gives_the_model_that_was_saved_there(family, directory_of):
    original = build(family, dtype=torch.float32, n_layers=2)
    path = directory_of(original)
    model = load_model(path)
    tokens = torch.arange(10).reshape(2, 5)
    with torch.no_grad():
        expected = original(tokens).logits
    torch.testing.assert_close(model.own_logits(tokens), expected)
    assert model.name == path.name
    assert model.fingerprint == load_model(str(path)).fingerprint
    assert model.vocabulary is not None and model.vocabulary.decode([7]) == "w07"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_directory_loads_in_the_type_that_is_asked_for(dtype, directory_of):
    model = load_model(directory_of(build("gpt2", dtype=torch.float32, n_layers=1)), dtype=dtype)
    assert model.weights_dtype == DTYPES[dtype]


def test_a_model_object_is_converted_if_a_type_is_asked_for():
    model = load_model(build("llama", dtype=torch.float32, n_layers=1), dtype="float64")
    assert model.weights_dtype == model.dtype == torch.float64


def test_a_bridge_is_taken_as_it_is():
    bridge = build("attention-only", n_layers=2)
    tokens = torch.arange(10).reshape(2, 5)
    assert torch.equal(load_model(bridge).own_logits(tokens), bridge(tokens))


@pytest.mark.parametrize("name", ZOO)
def test_an_embedded_model_needs_no_path(name):
    model = load_model(name)
    assert model.name == name and model.vocabulary is not None


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("family", BRIDGED)
def test_a_model_that_is_given_stays_as_it_was_and_loads_again(family, dtype, tmp_path, capfd):
    given = build(family, dtype=torch.float32, n_layers=1).train().requires_grad_()
    tokens = torch.arange(10).reshape(2, 5)
    before, facts = run(given.eval(), tokens), facts_of(given.train())
    first = load_model(given)
    other = load_model(given, dtype=dtype, tokenizer=word_tokenizer(["a", "b"]))
    again = load_model(given, tokenizer=word_tokenizer(["a", "b"]))
    assert facts_of(given) == facts
    assert torch.equal(run(given.eval(), tokens), before)
    assert first.fingerprint == again.fingerprint
    assert first.vocabulary is None and again.vocabulary is not None
    assert torch.equal(first.own_logits(tokens), again.own_logits(tokens))
    assert other.own_logits(tokens).dtype == torch.float32
    require_faithful(first, tokens, first.own_logits(tokens))
    if not FAMILIES[family].native:
        given.save_pretrained(tmp_path)
        assert (tmp_path / "model.safetensors").exists()
    assert capfd.readouterr().out == ""


def test_a_loaded_model_shares_the_weights_of_the_one_that_is_given():
    given = build("llama", dtype=torch.float32, n_layers=1)
    model = load_model(given)
    tokens = torch.arange(10).reshape(2, 5)
    before = model.own_logits(tokens)
    with torch.no_grad():
        given.model.embed_tokens.weight.mul_(2)
    assert not torch.equal(model.own_logits(tokens), before)


def test_a_device_is_honoured_for_bridges_too():
    bridge = build("attention-only", n_layers=1)
    assert load_model(bridge, device="cpu").device.type == "cpu"
    with pytest.raises(ModelError, match="'cuda:99' cannot be used here"):
        load_model(bridge, device="cuda:99")


@pytest.mark.parametrize("family", ["gpt2", "gpt-j", "llama"])
def test_the_parts_of_a_model_add_up_at_other_lengths_too(family):
    model = load_model(build(family, n_layers=2))
    for n_prompts, length in ((1, 1), (3, 7), (2, 20)):
        tokens = torch.randint(D_VOCAB, (n_prompts, length))
        require_faithful(model, tokens, model.own_logits(tokens))


def test_the_models_beside_the_repository_load(shared):
    model = load_model(shared / "models" / "stories260k")
    assert (model.shape.n_layers, model.shape.n_heads, model.shape.n_kv_heads) == (5, 8, 4)
    assert model.vocabulary is not None
    prompt = "Once upon a time, there was a little girl named"
    logits = model.own_logits(torch.tensor([model.vocabulary.encode(prompt)]))[0, -1]
    assert "Lily".startswith(model.vocabulary.decode([int(logits.argmax())]).strip())


@pytest.mark.gpu
def test_a_model_on_a_gpu_passes_its_self_check():
    for family in ("gpt2", "llama", "gpt-j", "gemma2", "bidirectional"):
        model = load_model(build(family, dtype=torch.float32, n_layers=2), device="cuda")
        assert model.device.type == "cuda"


# ------------------------------------------------------------------------------- what does not


def test_a_directory_without_weights_is_refused(directory_of):
    path = directory_of(build("gpt2", dtype=torch.float32, n_layers=1))
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights in safetensors format; save them with"):
        load_model(path)


def test_pickled_weights_are_not_read(directory_of):
    path = directory_of(build("gpt2", dtype=torch.float32, n_layers=1))
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights in safetensors format"):
        load_model(path)


def test_a_directory_without_a_tokenizer_is_refused(directory_of):
    path = directory_of(build("llama", dtype=torch.float32, n_layers=1), tokenizer=False)
    with pytest.raises(ModelError, match="tokenizer"):
        load_model(path)


def test_a_directory_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not a model directory: it has no config.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "no-such-type"}', "{}"])
def test_a_broken_configuration_is_refused(config, directory_of):
    path = directory_of(build("gpt2", dtype=torch.float32, n_layers=1))
    (path / "config.json").write_text(config)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(path)


def test_weights_cut_short_are_refused(directory_of):
    path = directory_of(build("gpt2", dtype=torch.float32, n_layers=1))
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(path)


def test_weights_that_lack_a_tensor_are_refused(directory_of):
    path = directory_of(build("gpt2", dtype=torch.float32, n_layers=1))
    weights = load_file(path / "model.safetensors")
    missing = "transformer.h.0.mlp.c_fc.weight"
    del weights[missing]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks 1 of its weights, among them '{missing}'"):
        load_model(path)


def test_a_checkpoint_without_a_language_model_head_is_refused(directory_of):
    path = directory_of(build("llama", dtype=torch.float32, n_layers=1).model)
    with pytest.raises(ModelError, match="lacks 1 of its weights, among them 'lm_head.weight'"):
        load_model(path)


@pytest.mark.parametrize(
    "path", ["./nope", "/nope/at/all", "~/nope", "a/b/c", "program.json", "here/../nope/x"]
)
def test_a_path_that_leads_nowhere_is_refused(path):
    line = f"there is no model at {path!r}: no such file or directory; the embedded models are"
    with pytest.raises(ModelError, match=re.escape(line)):
        load_model(path)


@pytest.mark.parametrize("source", [3, None, ["gpt2"], torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(source):
    with pytest.raises(
        ModelError, match=f"an object of type '{type(source).__name__}' is not a model; give"
    ):
        load_model(source)


def test_an_unknown_number_type_lists_the_known_ones():
    with pytest.raises(ModelError, match="no number type named 'int8'; choose one of float32, fl"):
        load_model("ioi-small", dtype="int8")


@pytest.mark.parametrize("device", ["cuda:99", "banana"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ModelError, match=f"the device '{device}' cannot be used here"):
        load_model("ioi-small", device=device)


def test_a_bridge_in_compatibility_mode_is_refused():
    bridge = TransformerBridge.boot_native(FAMILIES["attention-only"].config(1))
    bridge.compatibility_mode = True
    with pytest.raises(ModelError, match="compatibility mode.*give a bridge with raw weights"):
        load_model(bridge)


def test_grouped_falcon_is_refused_with_the_measured_difference():
    """TransformerLens unpacks its fused projection wrongly; the bridge agrees with itself."""
    with pytest.raises(SelfCheckError, match="cannot be decomposed exactly") as refusal:
        load_model(build("falcon-grouped"))
    measured = re.search(r"differ from its own by up to ([0-9.]+) ", str(refusal.value))
    assert measured is not None and float(measured[1]) > 0.1


@pytest.mark.parametrize("family", ["Olmo2", "Olmoe"])
def test_heads_that_share_a_norm_of_their_queries_are_refused(family):
    config = getattr(transformers, f"{family}Config")(**small(), num_key_value_heads=2)
    if hasattr(config, "num_experts"):
        config.num_experts, config.num_experts_per_tok = 2, 1
    with pytest.raises(
        ModelError, match="attention heads depend on one another before they attend"
    ):
        load_model(random_model(config))


@pytest.mark.parametrize(
    "config",
    [
        transformers.MambaConfig(vocab_size=67, hidden_size=32, num_hidden_layers=2, state_size=4),
        transformers.RwkvConfig(vocab_size=67, hidden_size=32, num_hidden_layers=2),
    ],
    ids=lambda config: config.model_type,
)
def test_models_without_attention_are_refused_in_one_line(config):
    line = "has no blocks of attention heads that can be told apart"
    with pytest.raises(ModelError, match=line) as refusal:
        load_model(random_model(config))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "config", "line"),
    [
        ("GPT2Model", transformers.GPT2Config(n_embd=32, n_layer=1, n_head=4), "cannot be run on"),
        ("T5ForConditionalGeneration", transformers.T5Config(d_model=32), "cannot be run on"),
        ("MptForCausalLM", transformers.MptConfig(d_model=32, n_layers=1, n_heads=4), "cannot be"),
    ],
)
def test_other_models_are_refused_in_one_line_too(kind, config, line):
    config.vocab_size = 67
    config.num_layers = 1
    with pytest.raises(ModelError, match=line) as refusal:
        load_model(getattr(transformers, kind)(config))
    assert "\n" not in str(refusal.value)


def test_a_residual_multiplier_that_the_parts_ignore_is_refused():
    config = transformers.GraniteConfig(**small(), residual_multiplier=0.5)
    with pytest.raises(SelfCheckError, match="cannot be decomposed exactly"):
        load_model(random_model(config))


# ------------------------------------------------------------------------------- helpers


def run(model, tokens):
    with torch.no_grad():
        output = model(tokens)
    return getattr(output, "logits", output)


def facts_of(model):
    """Return what loading could change of a model."""
    weights = [
        (name, weight.dtype, weight.requires_grad, weight.data_ptr())
        for name, weight in model.named_parameters()
    ]
    modules = [(name, type(part), part.training) for name, part in model.named_modules()]
    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return weights, modules, attention


def small():
    return {
        "vocab_size": D_VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }


def random_model(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def directory_of(tmp_path):
    """Saves a model in Hugging Face layout, with a tokenizer that knows w01 to w66"""

    def save(model, *, tokenizer=True):
        path = tmp_path / "saved"
        shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(path)
        if tokenizer:
            words = [f"w{number:02}" for number in range(1, D_VOCAB)]
            word_tokenizer(words).save_pretrained(path)
        return path

    return save
