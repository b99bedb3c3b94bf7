"""Dates as people write them become ISO 8601: an encoder-decoder reads "Tuesday, 3 March 1998" and writes "1998-03-03".

The data are generated. A beam search writes the outputs, and a picture shows where the decoder looked for each
character.
"""

from __future__ import annotations

import argparse
import datetime
import math
import time

import numpy as np

import tenon as tn
from tenon import F, nn, optim

PAD, START, STOP = range(3)
LETTERS = "\0\1\2" + " ,-./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORMATS = ("%d %B %Y", "%B %d, %Y", "%A, %d %B %Y", "%d-%b-%Y", "%d.%m.%Y", "%m/%d/%Y", "%a %b %d %Y", "%d %b %y")
OUTPUT_LENGTH = 11  # a date and the stop


class Transformer(nn.Module):
    """An encoder over ``src`` (N, S) and a decoder that reads ``trg`` (N, T) and the encoder's result: scores of the
    next character (N, T, characters)."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, num_heads: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.vocab_size = input_size
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.pos_encoding = nn.SinusoidalPositionalEncoding(hidden_size)
        options = {"dim_feedforward": 4 * hidden_size, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(hidden_size, num_heads, **options), num_layers, nn.LayerNorm(hidden_size)
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(hidden_size, num_heads, **options), num_layers, nn.LayerNorm(hidden_size)
        )
        self.fc = nn.Linear(hidden_size, input_size)

    def forward(self, src: tn.Tensor, trg: tn.Tensor) -> tn.Tensor:
        return self.decode(trg, self.encode(src))

    def encode(self, src: tn.Tensor) -> tuple[tn.Tensor, tn.Tensor]:
        """The encoder's result (N, S, hidden_size), and where the source is only filled up (N, S)."""
        padding = src == PAD
        return self.encoder(self._embedded(src), src_key_padding_mask=padding), padding

    def decode(self, trg: tn.Tensor, memory: tuple[tn.Tensor, tn.Tensor]) -> tn.Tensor:
        hidden, padding = memory
        out = self.decoder(self._embedded(trg), hidden, memory_key_padding_mask=padding, tgt_is_causal=True)
        return self.fc(out)

    def attention(self, src: tn.Tensor, trg: tn.Tensor) -> tn.Tensor:
        """How much of each source character goes into each output, in the decoder's last layer: (N, T, S)."""
        hidden, padding = self.encode(src)
        x = self._embedded(trg)
        *before, last = self.decoder.layers
        for layer in before:
            x = layer(x, hidden, memory_key_padding_mask=padding, tgt_is_causal=True)
        normed = last.norm1(x)
        x = x + last.self_attn(normed, normed, normed, need_weights=False, is_causal=True)[0]
        return last.multihead_attn(last.norm2(x), hidden, hidden, padding)[1]

    def _embedded(self, characters: tn.Tensor) -> tn.Tensor:
        return self.pos_encoding(self.embedding(characters) * math.sqrt(self.hidden_size))


# --- data --------------------------------------------------------------------------------------------------


def dates(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Days between 1950 and 2049, each in one of the formats, and in ISO 8601."""
    rng = np.random.default_rng(seed)
    first = datetime.date(1950, 1, 1)
    days = [first + datetime.timedelta(int(n)) for n in rng.integers(0, 36524, count)]
    written = [day.strftime(FORMATS[i]) for day, i in zip(days, rng.integers(0, len(FORMATS), count), strict=True)]
    return written, [day.isoformat() for day in days]


def numbers(texts: list[str], length: int) -> np.ndarray:
    """The texts' characters by number (N, length), filled up with PAD."""
    return np.array([[LETTERS.index(c) for c in text.ljust(length, LETTERS[PAD])] for text in texts])


def training_data(written: list[str], iso: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, what the decoder reads (the output behind a start), and what it is to write (the output and a stop)."""
    output = numbers(iso, OUTPUT_LENGTH - 1)
    edge = np.ones((len(iso), 1), np.int64)
    src = numbers(written, max(map(len, written)))
    return src, np.concatenate([START * edge, output], 1), np.concatenate([output, STOP * edge], 1)


def text_of(tokens: np.ndarray) -> str:
    return "".join(LETTERS[t] for t in tokens)


# --- the picture -------------------------------------------------------------------------------------------


def draw(model: Transformer, examples: list[str], outputs: list[str], path: str) -> None:
    """Where the decoder looked while it wrote each character, an example a panel."""
    from matplotlib.figure import Figure

    src = numbers(examples, max(map(len, examples)))
    trg = np.concatenate([np.full((len(src), 1), START), numbers(outputs, OUTPUT_LENGTH - 1)], 1)
    pair = tn.spec("N", "S", dtype="i64"), tn.spec("N", "T", dtype="i64")
    weights = tn.compile(model.eval().attention, *pair)(src, trg)
    figure = Figure(figsize=(4.5 * len(examples), 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(examples)))
    for axes, example, output, found in zip(panels, examples, outputs, weights, strict=True):
        axes.imshow(found[: len(output), : len(example)], cmap="Blues", vmin=0)
        axes.set_xticks(range(len(example)), example)
        axes.set_yticks(range(len(output)), output)
        axes.tick_params(length=0)
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8000, help="generated dates to learn from (%(default)s)")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=64, help="features (%(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of the encoder and of the decoder (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3, help="Adam's learning rate (%(default)s)")
    parser.add_argument("--beams", type=int, default=3, help="outputs followed at once (%(default)s)")
    parser.add_argument("--out", default="reverse_translation.png", help="where the picture goes (%(default)s)")
    args = parser.parse_args()

    tn.seed(0)
    src, trg, target = training_data(*dates(args.count, seed=0))
    model = Transformer(len(LETTERS), args.hidden, args.layers, num_heads=4)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    tokens = tn.spec("N", "S", dtype="i64"), tn.spec("N", "T", dtype="i64"), tn.spec("N", "T", dtype="i64")
    step = tn.train_step(model, lambda out, y: F.cross_entropy(out.transpose(1, 2), y), optimizer, tokens)
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    for epoch in range(args.epochs):
        optimizer.lr = args.lr * (1 - epoch / args.epochs)
        order = rng.permutation(len(src))
        losses = [step(src[i], trg[i], target[i]) for i in np.array_split(order, len(src) // args.batch_size)]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.perf_counter() - start:.0f} s")

    written, iso = dates(200, seed=1)
    found = tn.beam_search(
        model, numbers(written, max(map(len, written))), OUTPUT_LENGTH, start=START, stop=STOP, beams=args.beams
    )
    best = [text_of(hypotheses[0].tokens) for hypotheses in found]
    for given, hypotheses in list(zip(written, found, strict=True))[:5]:
        print(f"{given:>28}  " + "   ".join(f"{text_of(h.tokens)} ({h.score:.2f})" for h in hypotheses))
    print(f"right {np.mean([a == b for a, b in zip(best, iso, strict=True)]):.3f} of new dates")
    draw(model, written[:3], [text[: OUTPUT_LENGTH - 1] for text in best[:3]], args.out)


if __name__ == "__main__":
    main()
