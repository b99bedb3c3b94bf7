"""GPT and BERT load the folders that Hugging Face's transformers writes, and say what its models say."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pretrained_cases
import pytest
from pretrained_cases import GOLDEN, KINDS, inputs

import tenon as tn
from tenon import models

pytest.importorskip("safetensors")


@cache
def outputs(kind: str) -> list[np.ndarray]:
    """What Tenon's model, loaded from the golden folder, says."""
    model = tn.load_pretrained(GOLDEN / kind)
    assert not model.training
    found = tn.compile(model, *[tn.spec("B", "T", dtype="i64")] * len(inputs(kind)))(*inputs(kind))
    return [found] if kind == "gpt2" else list(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_gives_the_same_outputs(kind):
    with np.load(GOLDEN / kind / "expected.npz") as file:
        expected = list(file.values())
    for found, e in zip(outputs(kind), expected, strict=True):
        np.testing.assert_allclose(found, e, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_today_says_so_too(kind, tmp_path):
    peer = pretrained_cases.peer(kind)
    peer = type(peer).from_pretrained(GOLDEN / kind)
    peer.save_pretrained(tmp_path)
    assert same(tn.load_pretrained(tmp_path), tn.load_pretrained(GOLDEN / kind))
    expected = pretrained_cases.outputs(kind, peer, inputs(kind)).values()
    for found, e in zip(outputs(kind), expected, strict=True):
        np.testing.assert_allclose(found, e, atol=1e-5)


# --- names of older and of larger checkpoints --------------------------------------------------------------------


def folder(path: Path, kind: str, state: dict[str, Any], **settings: Any) -> Path:
    """A checkpoint folder with this state, and the golden configuration with other settings."""
    config = json.loads((GOLDEN / kind / "config.json").read_text()) | settings
    (path / "config.json").write_text(json.dumps(config))
    tn.save(state, path / "model.safetensors")
    return path


def golden(kind: str) -> dict[str, np.ndarray]:
    return tn.load(GOLDEN / kind / "model.safetensors")


def same(a: Any, b: Any) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)


def test_gpt2_without_prefix_and_with_masks(tmp_path):
    state = {k.removeprefix("transformer."): v for k, v in golden("gpt2").items()}
    state |= {f"h.{i}.attn.bias": np.ones((1, 1, 12, 12), np.float32) for i in range(2)}
    state["h.0.attn.masked_bias"] = np.float32(-1e4)
    model = tn.load_pretrained(folder(tmp_path, "gpt2", state))
    assert same(model, tn.load_pretrained(GOLDEN / "gpt2"))
    assert model.lm_head.weight is model.transformer["wte"].weight


def test_an_output_layer_of_its_own(tmp_path):
    state = golden("gpt2") | {"lm_head.weight": np.full((19, 8), 0.5, np.float32)}
    model = tn.load_pretrained(folder(tmp_path, "gpt2", state, tie_word_embeddings=False))
    assert (model.lm_head.weight.numpy() == 0.5).all() and not (model.transformer["wte"].weight.numpy() == 0.5).all()


def test_bert_with_prefix_old_names_and_heads(tmp_path):
    state = {f"bert.{k}": v for k, v in golden("bert").items()}
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
    }
    old |= {"cls.predictions.bias": np.zeros(19, np.float32), "cls.seq_relationship.bias": np.zeros(2, np.float32)}
    old["bert.embeddings.position_ids"] = np.arange(12)[None]
    assert same(tn.load_pretrained(folder(tmp_path, "bert", old)), tn.load_pretrained(GOLDEN / "bert"))


def test_bert_without_pooler(tmp_path):
    state = {k: v for k, v in golden("bert").items() if not k.startswith("pooler.")}
    with pytest.raises(tn.StateError, match="missing: pooler.dense.weight, pooler.dense.bias"):
        tn.load_pretrained(folder(tmp_path, "bert", state))
    model = tn.load_pretrained(tmp_path, add_pooling_layer=False)
    assert model.pooler is None and not any("pooler" in k for k in model.state_dict())


def test_a_checkpoint_in_parts(tmp_path):
    state = golden("bert")
    names = sorted(state)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, keys in parts.items():
        tn.save({k: state[k] for k in keys}, tmp_path / file)
    index = {"weight_map": {k: file for file, keys in parts.items() for k in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text((GOLDEN / "bert" / "config.json").read_text())
    assert same(tn.load_pretrained(tmp_path), tn.load_pretrained(GOLDEN / "bert"))
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(tn.TenonError, match="no a.safetensors"):
        tn.load_pretrained(tmp_path)


# --- what is wrong is said at once, and nothing is loaded ----------------------------------------------------------


def test_all_that_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    state = golden("gpt2")
    del state["transformer.ln_f.bias"], state["transformer.h.0.ln_1.weight"]
    state |= {
        "transformer.h.2.ln_1.weight": np.ones(8, np.float32),
        "transformer.wpe.weight": np.ones((3, 8), np.float32),
    }
    state["transformer.h.1.mlp.c_fc.weight"] = state["transformer.h.1.mlp.c_fc.weight"].T
    model = tn.load_pretrained(GOLDEN / "gpt2")
    before = model.state_dict()
    with pytest.raises(tn.StateError) as caught:
        tn.load_pretrained(folder(tmp_path, "gpt2", state), model)
    for text in (
        "missing: transformer.h.0.ln_1.weight, transformer.ln_f.bias",
        "unexpected: transformer.h.2.ln_1.weight",
        "transformer.wpe.weight: shape (3, 8) was given, (12, 8) expected",
        "transformer.h.1.mlp.c_fc.weight: shape (32, 8) was given, (8, 32) expected",
    ):
        assert text in str(caught.value)
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; expected one of gpt2, bert"),
        ({"activation_function": "swish9"}, "the activation is 'swish9'; expected one of relu, silu, gelu, gelu_new"),
        ({"n_head": 3}, "embed_dim 8 does not divide into 3 heads"),
        ({"n_layer": 0}, "n_layer must be at least 1, not 0"),
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx is True; the model has only False",
        ),
    ],
)
def test_what_the_models_do_not_do(tmp_path, settings, message):
    with pytest.raises(tn.TenonError, match=message):
        tn.load_pretrained(folder(tmp_path, "gpt2", golden("gpt2"), **settings))


def test_what_is_no_checkpoint_folder(tmp_path):
    with pytest.raises(tn.TenonError, match="no config.json"):
        tn.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(tn.StateError, match="is no JSON"):
        tn.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(tn.TenonError, match="no model.safetensors"):
        tn.load_pretrained(tmp_path, n_layer=1, n_embd=8, n_head=1, vocab_size=5, n_positions=4)
    with pytest.raises(tn.TenonError, match="n_layer cannot change a model that exists"):
        tn.load_pretrained(GOLDEN / "gpt2", tn.load_pretrained(GOLDEN / "gpt2"), n_layer=3)


# --- inputs --------------------------------------------------------------------------------------------------------


def test_too_many_tokens_and_unknown_ones():
    for kind, limit in (("gpt2", "GPT has 12 positions, and was given 13"), ("bert", "BERT has 12 positions")):
        model = tn.load_pretrained(GOLDEN / kind)
        with pytest.raises(tn.ShapeError, match=limit):
            tn.compile(model, tn.spec("B", 13, dtype="i64"), target="reference")
        exe = tn.compile(model, tn.spec("B", "T", dtype="i64"), target="reference")
        with pytest.raises(tn.IndexRangeError, match="19"):
            exe(np.array([[3, 19]]))
        with pytest.raises(tn.IndexRangeError):
            exe(np.zeros((1, 13), np.int64))


def test_sentence_embeddings_are_masked_means():
    model = tn.load_pretrained(GOLDEN / "bert")
    ids, mask, _ = inputs("bert")
    exe = tn.compile(model.sentence_embedding, *[tn.spec("B", "T", dtype="i64")] * 2, target="reference")
    hidden = tn.compile(model, *[tn.spec("B", "T", dtype="i64")] * 2, target="reference")(ids, mask)[0]
    mean = np.stack([h[m == 1].mean(0) for h, m in zip(hidden, mask, strict=True)])
    np.testing.assert_allclose(exe(ids, mask), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    alone = exe(ids[1:, :4], mask[1:, :4])
    np.testing.assert_allclose(exe(ids, mask)[1:], alone, atol=1e-6)  # padding changes nothing


def test_dropout_runs_in_training_only():
    tn.seed(0)
    config = models.GPTConfig(vocab_size=19, n_positions=12, n_embd=8, n_layer=1, n_head=2, n_inner=12)
    model = models.GPT(config)
    (ids,) = inputs("gpt2")
    train = tn.compile(model.train(), tn.spec("B", "T", dtype="i64"), target="reference")
    evaluate = tn.compile(model.eval(), tn.spec("B", "T", dtype="i64"), target="reference")
    assert (evaluate(ids) == evaluate(ids)).all() and not (train(ids) == train(ids)).all()
