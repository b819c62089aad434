"""Models that cannot be trained are refused in one sentence, before weights are read where that is possible."""

import json

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from motif.config import ModelConfig
from motif.errors import ModelError
from motif.models.architecture import check_vocabulary
from motif.models.policy import Policy
from motif.models.shape import model_shape
from support.tiny import SMALL

INSTEAD = "name a model that writes text"


@pytest.fixture
def llama(tiny_model, tmp_path):
    """Writes a tiny model with changes to its config.json, and returns its folder."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def write(kind=AutoModelForCausalLM, shards="1GB", **changes):
        torch.manual_seed(0)
        sizes = SMALL | {"vocab_size": len(tokenizer), "eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0}
        model = kind.from_config(LlamaConfig(**sizes))
        model.save_pretrained(tmp_path, max_shard_size=shards)
        tokenizer.save_pretrained(tmp_path)
        file = tmp_path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("BertConfig", "an encoder, whose tokens see those after them"),
        ("ModernBertConfig", "an encoder, whose tokens"),
        ("T5Config", "an encoder with a decoder"),
        ("BartConfig", "an encoder with a decoder"),
        ("ViTConfig", "a vision model"),
        ("Wav2Vec2Config", "a speech model"),
        ("MusicgenConfig", "made of several language models|a sound model|an encoder"),
        ("TimesFmConfig", "not a language model"),
    ],
)
def test_a_model_that_writes_no_text_is_refused_by_its_kind(kind, said, tmp_path):
    getattr(transformers, kind)().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"is ({said}).*{INSTEAD}"):
        model_shape(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "is a classifier"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.C"}}, "needs code of its own"),
        ({"model_type": "qwen9"}, f"'qwen9', which transformers {transformers.__version__} does not know"),
        ({"model_type": None}, "names no model_type"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"stored quantised \(gptq\)"),
        ({"num_attention_heads": 3}, "not a multiple"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(changes, said, llama):
    with pytest.raises(ModelError, match=said):
        model_shape(str(llama(**changes)))


def test_own_code_is_not_needed_where_transformers_knows_the_type(llama):
    assert model_shape(str(llama(auto_map={"AutoConfig": "mine.C"}))).layers == 2


def test_files_that_are_missing_or_cut_off_are_named(llama):
    folder = llama(shards="20KB")
    first, *_, last = sorted(folder.glob("model-*.safetensors"))
    content = last.read_bytes()
    for broken, said in (
        (content[:-9], "is cut off"),
        (b"version https://git-lfs", "only a pointer"),
        (b"", "is empty"),
    ):
        last.write_bytes(broken)
        with pytest.raises(ModelError, match=f"{last.name} {said}|{last.name} is not there, {said}"):
            model_shape(str(folder))
    last.write_bytes(content)
    first.unlink()
    with pytest.raises(ModelError, match=f"not complete: {first.name} is missing"):
        model_shape(str(folder))


def test_weights_that_are_not_there_are_not_made_up(llama):
    folder = str(llama(transformers.AutoModel))
    with pytest.raises(ModelError, match="has no weights for its output head"):
        Policy(ModelConfig(name=folder))
    with pytest.raises(ModelError, match="has no weights for its output head"):
        model_shape(folder)
    with pytest.raises(ModelError, match=r"other sizes than its config\.json says"):
        Policy(ModelConfig(name=str(llama(intermediate_size=32))))


def test_an_embedding_model_is_refused_by_the_files_of_its_library(llama):
    folder = llama()
    (folder / "config_sentence_transformers.json").write_text("{}")
    with pytest.raises(ModelError, match="is an embedding model"):
        model_shape(str(folder))


def test_a_tokenizer_that_does_not_fit_is_refused_before_weights_are_read(llama, monkeypatch):
    folder = llama(vocab_size=60)
    monkeypatch.setattr("motif.models.policy.load_model", None)
    with pytest.raises(ModelError, match="do not belong together"):
        Policy(ModelConfig(name=str(folder)))


def test_a_folder_without_weights_says_so_and_no_table_is_printed(llama, capfd):
    folder = llama(intermediate_size=32)
    with pytest.raises(ModelError, match="other sizes"):
        Policy(ModelConfig(name=str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights: add its model\.safetensors"):
        Policy(ModelConfig(name=str(folder)))
    assert "MISMATCH" not in capfd.readouterr().err


def test_a_tokenizer_of_another_vocabulary_is_refused(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    size = len(tokenizer)
    check_vocabulary("m", tokenizer, LlamaConfig(eos_token_id=1), size)
    check_vocabulary("m", tokenizer, LlamaConfig(eos_token_id=1), 10 * size)  # padded
    tokenizer.add_tokens(["<image>"], special_tokens=True)  # no text contains it
    check_vocabulary("m", tokenizer, LlamaConfig(eos_token_id=1), size)
    for rows, end in ((60, 1), (10 * size, 5 * size), (10 * size, None)):
        with pytest.raises(ModelError, match="do not belong together"):
            check_vocabulary("m", tokenizer, LlamaConfig(eos_token_id=end), rows)
