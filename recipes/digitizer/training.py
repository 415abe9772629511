"""Training of the network that reads leads' names: `python -m recipes.digitizer.training OUT [--steps N]`.

One step: `_batch` draws names and other words from (seed, step) in the fonts that come with matplotlib, as they look on
a flat sheet (blurred, pale, cut by a trace, beside other strokes); AdamW updates the weights, with a learning rate that
follows a cosine. The same seed gives the same weights, also after an interruption: OUT/state.pt holds the state, and
the same command continues from it. OUT/weights.safetensors is the file that `recipes.digitizer.network` loads.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from torch import nn

from recipes.digitizer.names import word_picture
from recipes.digitizer.network import BATCH_EPSILON, NAME_CLASSES, WIDTHS, WORD_SHAPE
from render.io import atomic_write
from render.record import LEADS

_BATCH = 64
_LEARNING_RATE, _WEIGHT_DECAY, _WARM_UP = 3e-3, 1e-3, 30
_SAVE_EVERY = 100
_STATE_FILE = "state.pt"
_OTHER_SHARE = 0.35  # of the words
_HEIGHTS = (7.0, 34.0)  # pixels, of a name's letters on a flat sheet
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.:%-"
_NEAR_MISSES = (
    "V", "VI", "1", "2", "3", "4", "5", "6", "aV", "VR", "IV", "l", "L", "F", "R", "a", "V7", "V0", "mV", "AVE",
    "25", "10", "mm", "Hz", "ID", "T", "L1", "F1", "VP", "/", "-", "N", "M", "U",
)  # fmt: skip

Word = NDArray[np.float32]
"""Ink of a word, 0-1: float32 (rows, columns)."""


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, ...]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    kinds = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmr10", "cmss10", "cmb10")
    return ("", *sorted(str(f) for f in folder.glob("*.ttf") if f.name.startswith(kinds) and "Display" not in f.name))


@lru_cache(maxsize=2048)
def _font(file: str, pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(file, pixels) if file else ImageFont.load_default(pixels)


def _sample_word(rng: Generator) -> tuple[Word, int]:
    """A word as `recipes.digitizer.names.word_picture` makes it, and the number of its class."""
    number = len(LEADS) if rng.random() < _OTHER_SHARE else int(rng.integers(len(LEADS)))
    other = number == len(LEADS)
    text = _other_text(rng) if other else LEADS[number]
    if not other and rng.random() < 0.12:
        text = text.upper()
    sideways = other and rng.random() < 0.35  # a name that is not upright is no name
    if sideways:
        text = LEADS[int(rng.integers(3, len(LEADS)))]
    ink = _draw_text(text, rng)
    if sideways:
        ink = np.rot90(ink, int(rng.choice([1, 2, 3], p=[0.2, 0.6, 0.2])))
    if other and not sideways and rng.random() < 0.15:
        ink = _strokes(rng)
    return word_picture(_add_noise(_crop_word(_wear_word(ink, rng), rng), rng)), number


def _other_text(rng: Generator) -> str:
    if rng.random() < 0.5:
        return str(rng.choice(_NEAR_MISSES))
    return "".join(rng.choice(list(_LETTERS), int(rng.integers(1, 6))))


def _draw_text(text: str, rng: Generator) -> Word:
    """The text with bare paper around it, in a random font and size."""
    files = _font_files()
    height = float(np.exp(rng.uniform(*np.log(_HEIGHTS))))
    font = _font(files[int(rng.integers(len(files)))], max(8, round(height * 1.35)))
    apart = rng.uniform(0.4, 1.2) * height if rng.random() < 0.12 else 0.0
    letters = list(text) if apart else [text]
    widths = [font.getlength(letter) for letter in letters]
    image = Image.new("L", (round(sum(widths) + apart * len(letters) + 2 * height) + 2, round(3.2 * height) + 4))
    pen, x = ImageDraw.Draw(image), height
    for letter, width in zip(letters, widths, strict=True):
        pen.text((x, 2.2 * height), letter, fill=255, font=font, anchor="ls",
                 stroke_width=int(height > 14 and rng.random() < 0.15))  # fmt: skip
        x += width + apart
    if rng.random() < 0.5:
        image = image.resize((max(4, round(image.width * rng.uniform(0.7, 1.2))), image.height))
    if rng.random() < 0.4:
        image = image.rotate(float(rng.normal(0, 2.0)), resample=Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) / 255.0


def _strokes(rng: Generator) -> Word:
    """A few lines that are no letters."""
    size = int(rng.integers(12, 40))
    image = Image.new("L", (2 * size, 2 * size))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        ends = rng.uniform(0.3, 1.7, 4) * size
        pen.line([*ends], fill=255, width=int(rng.integers(1, 4)))
    return np.asarray(image, dtype=np.float32) / 255.0


def _wear_word(ink: Word, rng: Generator) -> Word:
    """The word blurred and pale, without the stripe that a trace covers, and with the end of another stroke."""
    ink = gaussian_filter(ink, rng.uniform(0.2, 1.6) * ink.shape[0] / 60.0) if rng.random() < 0.8 else ink.copy()
    ink = ink / max(float(ink.max()), 1e-6) * rng.uniform(0.5, 1.5)
    if rng.random() < 0.3:
        y = rng.uniform(0.2, 0.8) * ink.shape[0] + rng.normal(0, 0.1) * np.arange(ink.shape[1])
        stripe = np.abs(np.arange(ink.shape[0])[:, None] - y[None]) < rng.uniform(0.5, 2.5)
        ink[stripe] = 0.0
    if rng.random() < 0.25:
        x, width = int(rng.uniform(0, ink.shape[1])), int(rng.integers(1, 4))
        ink[: int(rng.uniform(0, 0.6) * ink.shape[0]), x : x + width] = rng.uniform(0.4, 1.0)
    result: Word = np.clip(ink, 0.0, 1.0).astype(np.float32)
    return result


def _add_noise(ink: Word, rng: Generator) -> Word:
    """The word with noise in every pixel."""
    noise = rng.uniform(0, 0.15) * rng.standard_normal(ink.shape)
    result: Word = np.clip(ink + noise, 0.0, 1.0).astype(np.float32)
    return result


def _crop_word(ink: Word, rng: Generator) -> Word:
    """The word cut to its letters, sometimes a little too close or too wide."""
    rows, columns = (np.flatnonzero((ink > 0.3).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return ink
    loose = (rng.uniform(-0.04, 0.08, 4) * (rows[-1] - rows[0] + 1)).round().astype(int) * (rng.random() < 0.5)
    y0, y1 = max(0, rows[0] - loose[0]), max(rows[0] + 2, rows[-1] + 1 + loose[1])
    x0, x1 = max(0, columns[0] - loose[2]), max(columns[0] + 2, columns[-1] + 1 + loose[3])
    return ink[y0:y1, x0:x1]


class NameClassifier(nn.Module):
    """`recipes.digitizer.network.NameNetwork` as it learns: words (B, 2, *WORD_SHAPE) -> logits (B, 13)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 2
        for outputs in WIDTHS:
            batch = nn.BatchNorm2d(outputs, eps=BATCH_EPSILON)
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), batch, nn.ReLU(), nn.MaxPool2d(2)]
            inputs = outputs
        rows, columns = (side // 2 ** len(WIDTHS) for side in WORD_SHAPE)
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(inputs * rows * columns, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, len(NAME_CLASSES))
        )

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Logits (B, 13) of `NAME_CLASSES`."""
        logits: torch.Tensor = self.head(self.features(words))
        return logits


def _batch(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words (B, 2, *WORD_SHAPE) and their classes (B,) of one step."""
    rng = np.random.default_rng([seed, step])
    words, classes = zip(*(_sample_word(rng) for _ in range(_BATCH)), strict=True)
    return torch.from_numpy(np.stack(words)), torch.tensor(classes)


@dataclass(eq=False)
class _Run:
    """A run: the network, its optimizer, and how many steps are complete. It begins where OUT/state.pt ends."""

    network: NameClassifier
    optimizer: torch.optim.AdamW
    step: int

    @staticmethod
    def open(out: Path, seed: int) -> _Run:
        torch.manual_seed(seed)
        network = NameClassifier().train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        file = out / _STATE_FILE
        if not file.exists():
            return _Run(network, optimizer, 0)
        state = torch.load(file, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return _Run(network, optimizer, int(state["step"]))

    def save(self, out: Path) -> None:
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        with atomic_write(out / _STATE_FILE) as partial:
            torch.save(state, partial)
        _write_weights(self.network, out)

    def advance(self, seed: int, steps: int) -> tuple[float, float]:
        """One step of `steps`: the loss, and the share of words (0-1) that are classified correctly."""
        torch.manual_seed(seed * 1_000_003 + self.step)  # dropout, the same after a resume
        for group in self.optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * _schedule(self.step, steps)
        words, classes = _batch(seed, self.step)
        logits = self.network(words)
        loss = F.cross_entropy(logits, classes, label_smoothing=0.02)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach()), float((logits.argmax(dim=1) == classes).float().mean())


def train_network(out: Path, steps: int, seed: int = 0, report: Callable[[str], None] = print) -> NameClassifier:
    """Train up to step `steps`, from the state in OUT if there is one; the weights are in OUT/weights.safetensors.

    Args:
        out: folder of the run.
        steps: in all; the learning rate depends on it.
        seed: of weights, words and dropout.
        report: called with a line of text every `_SAVE_EVERY` steps.
    """
    run = _Run.open(out, seed)
    start, figures = time.monotonic(), []
    while run.step < steps:
        figures.append(run.advance(seed, steps))
        if run.step % _SAVE_EVERY == 0 or run.step == steps:
            run.save(out)
            loss, accuracy = np.mean(figures, axis=0)
            minutes = (time.monotonic() - start) / 60
            report(f"step {run.step}: loss {loss:.4f}, accuracy {accuracy:.3f}, {minutes:.1f} minutes")
            figures = []
    return run.network.eval()


def _schedule(step: int, steps: int) -> float:
    """The learning rate of a step, relative to the largest: a warm-up and half a cosine."""
    if step < _WARM_UP:
        return (step + 1) / _WARM_UP
    return max(0.01, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _write_weights(network: NameClassifier, out: Path) -> Path:
    """Write the weights as float16 to OUT/weights.safetensors; returns its path."""
    from safetensors.torch import save_file

    state = network.state_dict().items()
    weights = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state}
    file = out / "weights.safetensors"
    with atomic_write(file) as partial:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial)
    return file


def run_training(arguments: Sequence[str] | None = None) -> None:
    """The command line: train, print the loss, and write the weights."""
    parser = argparse.ArgumentParser(description="Train the network that reads leads' names for ecg-vlm digitize.")
    parser.add_argument("out", type=Path, help="folder of the run; an interrupted run in it is continued")
    parser.add_argument("--steps", type=int, default=3000, help=f"of {_BATCH} words (default 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="on a shared machine one is quickest (default 1)")
    a = parser.parse_args(arguments)
    torch.set_num_threads(a.threads)
    assert len(NAME_CLASSES) == len(LEADS) + 1
    train_network(a.out, a.steps, a.seed, lambda line: print(line, flush=True))


if __name__ == "__main__":
    run_training()
