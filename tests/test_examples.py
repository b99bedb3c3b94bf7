"""The examples run as a user runs them, and say what they should."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tenon as tn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

for needed in ("sklearn", "matplotlib"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"the examples need {needed}", allow_module_level=True)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HELP = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
for path in sys.argv[2:]:
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as ended:
        print(path, "ends with", ended.code)
"""


def test_help(python):
    scripts = sorted(EXAMPLES.glob("*.py"))
    printed = python("-c", HELP, EXAMPLES, *scripts).stdout
    for path in scripts:
        assert f"usage: {path.name}" in printed and f"{path} ends with 0" in printed


@pytest.mark.slow
def test_digits_cnn_learns_to_read(python, tmp_path):
    printed = python(EXAMPLES / "digits_cnn.py", "--out", "plot.png").stdout
    accuracy = re.search(r"test accuracy ([\d.]+)", printed)
    assert accuracy and float(accuracy[1]) >= 0.98
    assert re.search(r"train: \d+ nodes in \d+ fused kernels \(\d+ compiled, \d+ loaded from the cache", printed)
    assert re.search(r"arena \S+ MiB", printed)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_linear_regression_finds_the_line(python, tmp_path):
    printed = python(EXAMPLES / "linear_regression.py", "--out", "plot.png").stdout
    assert "the prediction for 6 is 6.0000" in printed
    ours, exact = map(float, re.findall(r"(\d\.\d+)[,;]", printed.splitlines()[1]))
    assert ours == pytest.approx(exact, abs=0.05) and exact > 0.3
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


RUNS = {
    "feedforward": (["--epochs", "12"], r"mini-batches: test accuracy (\S+)", 0.9),
    "overfitting": (["--epochs", "12", "--out", "plot.png"], r"early stopping .* test accuracy (\S+)", 0.5),
    "cnn_color": (["--epochs", "4", "--size", "28"], r"\ntest accuracy (\S+)", 0.7),
    "autoencoder": (["--epochs", "25", "--out", "plot.png"], r"their mean image (\S+)", 0.05),
    "gan_digits": (["--epochs", "4", "--out", "plot.png"], r"drawn digits vary (\S+) times", 0.2),
    "transfer_learning": (["--epochs", "3"], r"new head: accuracy (\S+)", 0.5),
    "segmentation": (
        ["--images", "160", "--size", "32", "--width", "6", "--epochs", "3", "--out", "plot.png"],
        r"\nmean (\S+)",
        0.15,
    ),
    "detection": (
        ["--images", "240", "--width", "6", "--epochs", "3", "--out", "plot.png"],
        r"\nmean average precision (\S+)",
        0.0,
    ),
    "lstm_digits": (["--epochs", "8", "--hidden", "64"], r"\ntest accuracy (\S+)", 0.7),
    "sine_rnn": (["--epochs", "12", "--out", "plot.png"], r"by a factor of (\S+)", 2),
    "char_gpt": (
        ["--steps", "60", "--width", "32", "--layers", "2", "--kilobytes", "200", "--checks", "2"],
        r"; (\d+) are those written without the cache",
        256,
    ),
    "reverse_translation": (
        ["--count", "640", "--epochs", "2", "--hidden", "32", "--layers", "1", "--out", "plot.png"],
        r"\nright (\S+) of new dates",
        0,
    ),
    "text_classifier": (
        ["--epochs", "4", "--count", "300", "--length", "48", "--hidden", "32", "--out", "plot.png"],
        r"\nvalidation accuracy (\S+)",
        0.7,
    ),
    "cnn_rnn": (
        ["--epochs", "4", "--features", "32", "--hidden", "32", "--out", "plot.png"],
        r"directions (\S+)",
        0.3,
    ),
    "spoken_digits": (["--epochs", "4", "--count", "40"], r"\ntest accuracy (\S+)", 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_short_run(name, python, tmp_path):
    arguments, pattern, least = RUNS[name]
    printed = python(EXAMPLES / f"{name}.py", *arguments).stdout
    found = re.search(pattern, printed)
    assert found and float(found[1]) >= least, printed
    if "--out" in arguments:
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


# --- sentences' embeddings ---------------------------------------------------------------------------------

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##s", "a", "caf", "##e", "cafe", "!", ",", "B", "語"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder as published ones are, with a tiny BERT of random weights."""
    safetensors = pytest.importorskip("safetensors.numpy")
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 12, "max_position_embeddings": 9, "initializer_range": 0.5}
    state = tn.models.BERT(tn.models.BERTConfig(**sizes)).state_dict()
    safetensors.save_file({f"bert.{k}": v for k, v in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return tmp_path


TEXTS = ["Playing,  a Café!", "plays\ta\n語a", "xplay playx playings", "", "b B a\x00!$a", "a" * 101, "ﬁ, Ａ"]


def test_word_pieces(checkpoint):
    tokenizer = load("bert_embed").WordPiece(checkpoint)
    assert [PIECES[i] for i in tokenizer(TEXTS[0])] == ["[CLS]", "play", "##ing", ",", "a", "cafe", "!", "[SEP]"]
    assert [PIECES[i] for i in tokenizer(TEXTS[2])][1:-1] == ["[UNK]", "[UNK]", "play", "##ing", "##s"]
    tokens, mask = tokenizer.batch(TEXTS[:2], 5)
    assert tokens.tolist() == [[2, 4, 5, 12, 3], [2, 4, 6, 7, 3]] and mask.all()


def test_word_pieces_are_those_of_the_tokenizers_library(checkpoint):
    peer = pytest.importorskip("tokenizers").BertWordPieceTokenizer
    for lower in (True, False):
        (checkpoint / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
        ours, theirs = load("bert_embed").WordPiece(checkpoint), peer(str(checkpoint / "vocab.txt"), lowercase=lower)
        for text in TEXTS:
            assert ours(text) == theirs.encode(text).ids, text


@pytest.mark.slow
def test_sentences_are_compared(checkpoint, python):
    texts = ["playing, a cafe!", "Playing , a CAFÉ!", "a"]
    printed = python(EXAMPLES / "bert_embed.py", "--weights", checkpoint, *texts).stdout
    mean, pooled = (np.array([row.split()[1:] for row in part.splitlines()[1:4]], float) for part in cosines(printed))
    for found in (mean, pooled):
        assert found[0, 1] == 1 and np.allclose(np.diag(found), 1) and found[0, 2] < 0.999
    model = tn.load_pretrained(checkpoint)
    tokens = load("bert_embed").WordPiece(checkpoint).batch(texts[:1], 9)[0], [[2, 7, 3]]
    alone = [tn.compile(model, tn.spec(1, "T", dtype="i64"), target="reference")(np.array(t))[0][0] for t in tokens]
    a, b = (x.mean(0) for x in alone)
    assert mean[0, 2] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-4)


def cosines(printed: str) -> list[str]:
    return printed.split("\ncosines, ")[1:]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_what_a_checkpoint_lacks_is_named(checkpoint, name, capsys, monkeypatch):
    (checkpoint / name).unlink()
    monkeypatch.setattr("sys.argv", ["bert_embed.py", "--weights", str(checkpoint)])
    assert load("bert_embed").main() == 1
    assert capsys.readouterr().err.startswith(f"bert_embed.py: there is no {name} in {checkpoint}\n")


def test_a_vocabulary_larger_than_the_model_is_refused(checkpoint):
    (checkpoint / "vocab.txt").write_text("\n".join([*PIECES, "x", "y"]), encoding="utf-8")
    with pytest.raises(tn.TenonError, match="17 pieces; the model has 16"):
        load("bert_embed").embeddings(checkpoint, ["a"])


# --- the digits' data --------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """MNIST's four files with 40 and 20 made-up digits."""
    rng = np.random.default_rng(0)
    for prefix, count, suffix in (("train", 40, ".gz"), ("t10k", 20, "")):
        images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


def test_mnist_files_are_read(mnist):
    data = load("digits_cnn").mnist(mnist)
    assert data.x.shape == (40, 1, 28, 28) and data.x_test.shape == (20, 1, 28, 28)
    assert data.x.dtype == np.float32 and data.y.dtype == np.int64
    assert abs(data.x.mean()) < 1e-5 and data.x.std() == pytest.approx(1, rel=1e-4)
    assert data.y_test.tolist() == [*range(10), *range(10)]


def test_bundled_digits_are_split_and_resized():
    data = load("digits_cnn").bundled_digits(seed=0)
    assert len(data.x) == 1438 and len(data.x_test) == 359
    assert data.x.shape[1:] == (1, 28, 28)
    again = load("digits_cnn").bundled_digits(seed=0)
    assert (again.y_test == data.y_test).all()


def test_resizing_is_bilinear():
    resize = load("digits_cnn").resize
    ramp = np.add.outer(np.arange(8.0), 10 * np.arange(8.0))[None]
    assert np.allclose(resize(ramp, 8), ramp)
    doubled = resize(ramp, 16)[0]
    assert np.allclose(np.diff(doubled[1:-1], axis=0), 0.5) and np.allclose(np.diff(doubled[:, 1:-1], axis=1), 5)
    assert doubled.min() == ramp.min() and doubled.max() == ramp.max()


def cut(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-3])


def damage_gzip(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "t10k-labels-idx1-ubyte").unlink(), "neither t10k-labels-idx1-ubyte nor t10k-labels"),
        (cut, r"announces \(20,\), and holds 17 bytes"),
        (damage_gzip, "cannot be read"),
        (lambda d: (d / "t10k-images-idx3-ubyte").write_bytes(b"hello"), "is not an IDX file of unsigned bytes with 3"),
        (lambda d: write_idx(d / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8)), "20 test images and 3 labels"),
        (lambda d: write_idx(d / "t10k-labels-idx1-ubyte", np.full(20, 11, np.uint8)), "labels reach 11"),
        (lambda d: write_idx(d / "t10k-images-idx3-ubyte", np.zeros((20, 8, 8), np.uint8)), "are 8x8; 28x28 was"),
    ],
)
def test_bad_files_are_explained(mnist, spoil, message, capsys):
    module = load("digits_cnn")
    spoil(mnist)
    with pytest.raises(module.DataError, match=message):
        module.mnist(mnist)
    assert module.main(["--data", str(mnist)]) == 1
    assert capsys.readouterr().err.startswith("digits_cnn.py: ")
