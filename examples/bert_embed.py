"""How alike sentences are, by a BERT from a checkpoint folder.

The folder is as published ones are: config.json, model.safetensors and vocab.txt (and tokenizer_config.json, where
capitals count), such as bert-base-uncased's or sentence-transformers/all-MiniLM-L6-v2's.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import F, models

SENTENCES = [
    "A man is playing a guitar.",
    "Somebody makes music on a guitar.",
    "The cat sleeps on the sofa.",
    "A kitten is lying on the couch.",
    "Interest rates rose again last month.",
]


class WordPiece:
    """Text to token ids, as BERT's tokenizer does it: words and signs, in the longest pieces of the vocabulary."""

    def __init__(self, folder: Path):
        path = folder / "vocab.txt"
        if not path.is_file():
            raise tn.TenonError(f"there is no vocab.txt in {folder}")
        self.ids = {piece: i for i, piece in enumerate(path.read_text(encoding="utf-8").splitlines())}
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
        if missing := [piece for piece in special if piece not in self.ids]:
            raise tn.TenonError(f"{path} lacks {', '.join(missing)}")
        self.padding, self.unknown, self.first, self.last = (self.ids[piece] for piece in special)
        settings = folder / "tokenizer_config.json"
        self.lower = not settings.is_file() or json.loads(settings.read_text()).get("do_lower_case", True)

    def words(self, text: str) -> list[str]:
        """Words, and each sign and each Chinese character by itself; without accents and capitals if ``lower``."""
        if self.lower:
            text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        spaced = []
        for c in text:
            kind, name = unicodedata.category(c), unicodedata.name(c, "")
            if kind == "Zs" or c in "\t\n\r":
                spaced.append(" ")
            elif kind[0] == "P" or (c.isascii() and kind[0] == "S") or name.startswith("CJK UNIFIED"):
                spaced.append(f" {c} ")
            elif kind[0] != "C":
                spaced.append(c)
        return "".join(spaced).split()

    def pieces(self, word: str) -> list[int]:
        """The longest piece that begins the word, then the longest that goes on (``##...``), to its end; a word that
        cannot be put together so, or of more than 100 letters, is unknown."""
        found, start = [], 0
        while start < len(word) <= 100:
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    found.append(self.ids[piece])
                    start = end
                    break
            else:
                return [self.unknown]
        return found or [self.unknown]

    def __call__(self, text: str) -> list[int]:
        return [self.first, *(i for word in self.words(text) for i in self.pieces(word)), self.last]

    def batch(self, texts: list[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask, each i64[texts, longest]: cut off at ``limit`` tokens, filled up with padding."""
        rows = [self(text) for text in texts]
        rows = [row if len(row) <= limit else [*row[: limit - 1], self.last] for row in rows]
        mask = np.arange(max(map(len, rows))) < np.array([[len(row)] for row in rows])
        tokens = np.full(mask.shape, self.padding)
        tokens[mask] = np.concatenate(rows)
        return tokens, mask.astype(np.int64)


def embeddings(folder: Path, texts: list[str], pooler: bool = True) -> dict[str, np.ndarray]:
    """Vectors of length 1, f32[texts, hidden], by two ways to make one of a text's many: the mean over its tokens, and
    the pooler's, which reads the first."""
    tokenizer = WordPiece(folder)
    model = tn.load_pretrained(folder, **({} if pooler else {"add_pooling_layer": False}))
    if not isinstance(model, models.BERT):
        raise tn.TenonError(f"{folder / 'config.json'} describes a {model.model_type}; a bert was expected")
    if len(tokenizer.ids) > model.vocab_size:
        raise tn.TenonError(f"{folder / 'vocab.txt'} has {len(tokenizer.ids)} pieces; the model has {model.vocab_size}")

    @tn.function
    def embed(tokens: tn.spec("B", "T", dtype="i64"), mask: tn.spec("B", "T", dtype="i64")):  # type: ignore[valid-type]
        mean = model.sentence_embedding(tokens, mask)
        return (mean, F.normalize(model(tokens, mask)[1], dim=-1)) if pooler else (mean,)

    found = embed(*tokenizer.batch(texts, model.max_length))
    return dict(zip(("mean of the tokens", "pooler"), found, strict=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="the checkpoint folder")
    parser.add_argument("--no-pooler", action="store_true", help="for a checkpoint that has none")
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="what is compared (five of its own)")
    args = parser.parse_args()

    try:
        found = embeddings(args.weights, args.sentences, not args.no_pooler)
    except tn.TenonError as error:
        print(f"bert_embed.py: {error}", file=sys.stderr)
        return 1
    for number, sentence in enumerate(args.sentences, 1):
        print(f"{number}: {sentence}")
    for name, vectors in found.items():
        print(f"\ncosines, {name}:")
        for number, row in enumerate(vectors @ vectors.T, 1):
            print(f"{number}:", *(f"{c:7.4f}" for c in row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
