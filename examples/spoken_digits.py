"""Words by their sound: one-dimensional convolution over spectrograms.

By default the sounds are synthesised here: ten words of two or three tones each, spoken high and low, fast and slow, in
noise. With --data DIR they are WAV files in a folder for each word (16-bit PCM).
"""

from __future__ import annotations

import argparse
import sys
import wave
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import nn, optim

RATE, LENGTH, WINDOW, HOP = 8000, 6400, 256, 128
NOTES = np.array([330, 440, 587, 784, 1047])
WORDS = [(0, 1), (1, 0), (0, 2, 4), (4, 2, 0), (3, 3), (2, 4), (4, 1), (1, 3, 1), (3, 1, 3), (2, 2, 0)]


def speak(word: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A word as sound, f32[LENGTH]: tones with overtones, at a speaker's pitch and speed."""
    sound = rng.normal(0, 0.15, LENGTH)
    pitch, speed = rng.uniform(0.85, 1.2), rng.uniform(0.8, 1.25)
    place = int(rng.uniform(0, 800))
    for note in word:
        n = int(1500 / speed)
        t = np.arange(n) / RATE
        phase = 2 * np.pi * NOTES[note] * pitch * t * (1 + 0.02 * np.sin(2 * np.pi * 6 * t))
        tone = sum(np.sin(k * phase) / k**1.5 for k in (1, 2, 3)) * np.hanning(n)
        sound[place : place + n] += tone[: max(0, LENGTH - place)]
        place += n
    return sound.astype(np.float32)


def read_wav(path: Path) -> np.ndarray:
    """The first channel of a WAV file, cut or filled up to LENGTH samples."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            sys.exit(f"{path}: {8 * file.getsampwidth()} bits a sample; 16 were expected")
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")[:: file.getnchannels()]
        step = max(1, round(file.getframerate() / RATE))
    sound = np.zeros(LENGTH, np.float32)
    kept = data[::step][:LENGTH] / 32768
    sound[: len(kept)] = kept
    return sound


def spectrogram(sounds: np.ndarray) -> np.ndarray:
    """Logarithmic magnitudes (N, frequencies, times) of Hann windows."""
    frames = np.lib.stride_tricks.sliding_window_view(sounds, WINDOW, 1)[:, ::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames))[..., : WINDOW // 4]
    return np.log1p(10 * power).transpose(0, 2, 1).astype(np.float32)


def network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.LazyBatchNorm1d(), nn.LazyConv1d(48, 5, padding="same"), nn.ReLU(), nn.MaxPool1d(2),
        nn.LazyConv1d(64, 5, padding="same"), nn.LazyBatchNorm1d(), nn.ReLU(), nn.MaxPool1d(2),
        nn.LazyConv1d(64, 3, padding="same"), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Dropout(0.3),
        nn.LazyLinear(classes),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of WAV files, one folder a word")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--count", type=int, default=100, help="synthesised sounds of each word")
    args = parser.parse_args()

    if args.data:
        names = sorted(p.name for p in args.data.iterdir() if p.is_dir())
        files = [(f, label) for label, name in enumerate(names) for f in sorted((args.data / name).glob("*.wav"))]
        if not files:
            sys.exit(f"{args.data} has no WAV files in folders, one for each word")
        sounds, labels = np.array([read_wav(f) for f, _ in files]), np.array([label for _, label in files])
    else:
        rng = np.random.default_rng(0)
        names = [str(i) for i in range(len(WORDS))]
        labels = np.repeat(np.arange(len(WORDS)), args.count)
        sounds = np.array([speak(WORDS[label], rng) for label in labels])

    tn.seed(0)
    x, xt, y, yt = tn.data.train_test_split(spectrogram(sounds), labels)
    model = network(len(names))
    print(tn.summary(model, tn.spec("B", *x.shape[1:])))
    optimizer = optim.AdamW(model.parameters(), lr=2e-3)
    trainer = tn.Trainer(model, optimizer, nn.CrossEntropyLoss(label_smoothing=0.1), ["accuracy"])
    trainer.fit(x, y, args.epochs, batch_size=32, validation_data=(xt, yt), verbose=2)
    found = trainer.predict(xt).argmax(1)
    for label, name in enumerate(names):
        print(f"word {name}: {np.mean(found[yt == label] == label):.1%} understood")
    print(f"test accuracy {np.mean(found == yt):.4f}")


if __name__ == "__main__":
    main()
