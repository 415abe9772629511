"""Training of the networks that read names of leads and lines of print:
`python -m recipes.digitizer.training names|lines OUT [--steps N]`.

One step: `_word_batch` or `_line_batch` draws text from (seed, step) in the fonts that come with matplotlib, as it
looks on a flat sheet (blurred, pale, cut by a trace, beside other strokes); AdamW updates the weights, with a learning
rate that follows a cosine. The same seed gives the same weights, also after an interruption: OUT/state.pt holds the
state, and the same command continues from it. OUT/names.safetensors or OUT/lines.safetensors is the file that
`recipes.digitizer.network` loads.
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
from recipes.digitizer.network import (
    BATCH_EPSILON,
    LINE_CHARACTERS,
    LINE_LAYERS,
    LINE_ROWS,
    NAME_CLASSES,
    NAME_LAYERS,
    WORD_SHAPE,
    Layers,
)
from recipes.digitizer.printed_scales import line_picture
from render.io import atomic_write
from render.record import LEADS

_BATCH, _LINE_BATCH = 64, 32
_LONGEST_LINE = 28  # characters; longer lines cost more and teach no more
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
_SPEEDS, _GAINS = (
    ("25", "25", "50", "12.5", "25.0", "50.0", "100", "10", "5", "12,5", "25,0"),
    ("10", "10", "5", "20", "2.5", "10.0", "5.0", "20.0", "10.00", "2,5", "10,0", "15", "40", "1"),
)
_SPEED_UNITS = ("mm/s", "mm/s", "mm/sec", "mm/Sek", "mm/S", "mm / s", "MM/S", "mm/sec.")
_GAIN_UNITS = ("mm/mV", "mm/mV", "mm/mv", "mm / mV", "MM/MV", "cm/mV")
_OTHER_UNITS = ("", "Hz", " Hz", "~", "ms", " bpm", "/min", " mV", "mm", " s")
_LINE_STARTS = (
    "Speed: ", "Speed ", "Gain: ", "Limb: ", "Chest: ", "Paper speed ", "Vorschub ", "Papier ", "Vitesse ", "Geschw.: ",
    "Scale ", "Device: ", "L:", "C:", "F ", "AC ", "Filter: ", "ADS ", "Auto ", "Sensitivity ", "Ext: ", "LP ", "x1.0 ",
    "Vel: ", "Amplitud ", "Loc: ", "ID: ", "V1 ", "II ", "aVR ", "Page 1 of ", "12SL ", "Name: ", "Rate ",
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


def _draw_text(text: str, rng: Generator, spaced_share: float = 0.12) -> Word:
    """The text with bare paper around it, in a random font and size; the share of texts with letters far apart."""
    files = _font_files()
    height = float(np.exp(rng.uniform(*np.log(_HEIGHTS))))
    font = _font(files[int(rng.integers(len(files)))], max(8, round(height * 1.35)))
    apart = rng.uniform(0.4, 1.2) * height if rng.random() < spaced_share else 0.0
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


def _line_text(rng: Generator) -> str:
    """A line of print: speed, gain and filter as machines word them, or other words."""
    words = [str(rng.choice(_LINE_STARTS))] if rng.random() < 0.4 else []
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.random()
        if kind < 0.6:
            unit = str(rng.choice(_SPEED_UNITS if kind < 0.33 else _GAIN_UNITS))
            number = str(rng.choice(_SPEEDS if kind < 0.33 else _GAINS)) if rng.random() < 0.7 else _number(rng)
            words.append(f"{number}{' ' * int(rng.integers(2))}{unit}")
        elif kind < 0.8:
            words.append("".join(rng.choice(list(_LETTERS), int(rng.integers(1, 9)))))
        else:
            words.append(_number(rng) + str(rng.choice(_OTHER_UNITS)))
        between = rng.choice([" ", " ", "  ", "    "] if rng.random() < 0.9 else [",", ";", " | ", "-"])
        words.append(str(between))
    text = "".join(words)[:_LONGEST_LINE].strip()
    return text.upper() if rng.random() < 0.1 else text


def _number(rng: Generator) -> str:
    digits = "".join(rng.choice(list("0123456789"), int(rng.integers(1, 4))))
    return digits + (f"{rng.choice(['.', ','])}{rng.integers(100)}" if rng.random() < 0.3 else "")


def line_characters(text: str) -> str:
    """The text in `LINE_CHARACTERS`: small letters, points for commas, one "?" for a run of other characters."""
    known = [c if c in LINE_CHARACTERS else "?" for c in text.lower().replace(",", ".")]
    return "".join(c for k, c in enumerate(known) if c not in "? " or k == 0 or known[k - 1] != c)


def _sample_line(rng: Generator) -> tuple[Word, str]:
    """A line as `recipes.digitizer.printed_scales.line_picture` makes it, and its characters."""
    text = _line_text(rng)
    ink = _crop_word(_wear_word(_draw_text(text, rng, 0.03), rng), rng)
    return line_picture(_add_noise(ink, rng)), line_characters(text)


class _Network(nn.Module):
    """Convolutions and a head as `recipes.digitizer.network.ConvolutionNetwork` has them."""

    def __init__(self, layers: Layers, channels: int, rows: int, columns: int, outputs: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for width, pool in layers:
            batch = nn.BatchNorm2d(width, eps=BATCH_EPSILON)
            parts += [nn.Conv2d(channels, width, 3, padding=1), batch, nn.ReLU(), nn.MaxPool2d(pool)]
            rows, columns, channels = rows // pool[0], columns // pool[1], width
        self.features = nn.Sequential(*parts)
        self.head = nn.Sequential(
            nn.Linear(channels * rows * columns, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, outputs)
        )


class NameClassifier(_Network):
    """`recipes.digitizer.network.NameNetwork` as it learns: words (B, 2, *WORD_SHAPE) -> logits (B, 13)."""

    figure = "correct"

    def __init__(self) -> None:
        super().__init__(NAME_LAYERS, 2, *WORD_SHAPE, len(NAME_CLASSES))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Logits (B, 13) of `NAME_CLASSES`."""
        logits: torch.Tensor = self.head(self.features(words).flatten(1))
        return logits

    def learn(self, seed: int, step: int) -> tuple[torch.Tensor, float]:
        """The loss of a step, and the share of words (0-1) that are classified correctly."""
        words, classes = _word_batch(seed, step)
        logits = self(words)
        loss = F.cross_entropy(logits, classes, label_smoothing=0.02)
        return loss, float((logits.argmax(dim=1) == classes).float().mean())


class LineReader(_Network):
    """`recipes.digitizer.network.LineNetwork` as it learns: lines (B, 1, LINE_ROWS, w) -> logits (B, w // 4, 20)."""

    figure = "bare columns"

    def __init__(self) -> None:
        super().__init__(LINE_LAYERS, 1, LINE_ROWS, 4, len(LINE_CHARACTERS) + 1)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        """Logits (B, w // 4, 20) of `LINE_CHARACTERS` and of no character."""
        logits: torch.Tensor = self.head(self.features(lines).permute(0, 3, 1, 2).flatten(2))
        return logits

    def learn(self, seed: int, step: int) -> tuple[torch.Tensor, float]:
        """The loss of a step (Graves et al. 2006, connectionist temporal classification), and the share of columns
        (0-1) whose most probable character is none."""
        lines, columns, texts = _line_batch(seed, step)
        logits = self(lines)
        characters = torch.tensor([LINE_CHARACTERS.index(c) for text in texts for c in text])
        lengths = torch.tensor([len(text) for text in texts])
        none = len(LINE_CHARACTERS)
        loss = F.ctc_loss(
            logits.log_softmax(dim=2).transpose(0, 1), characters, columns // 4, lengths, none, zero_infinity=True
        )
        return loss, float((logits.argmax(dim=2) == none).float().mean())


NETWORKS: dict[str, type[NameClassifier] | type[LineReader]] = {"names": NameClassifier, "lines": LineReader}


def _word_batch(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words (B, 2, *WORD_SHAPE) and their classes (B,) of one step."""
    rng = np.random.default_rng([seed, step])
    words, classes = zip(*(_sample_word(rng) for _ in range(_BATCH)), strict=True)
    return torch.from_numpy(np.stack(words)), torch.tensor(classes)


def _line_batch(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Lines (B, 1, LINE_ROWS, w) of one step, the columns of each (B,), and their characters."""
    rng = np.random.default_rng([seed, step])
    lines, texts = zip(*(_sample_line(rng) for _ in range(_LINE_BATCH)), strict=True)
    columns = [line.shape[1] for line in lines]
    batch = np.zeros((_LINE_BATCH, 1, LINE_ROWS, max(columns)), dtype=np.float32)
    for picture, line in zip(batch, lines, strict=True):
        picture[0, :, : line.shape[1]] = line
    return torch.from_numpy(batch), torch.tensor(columns), texts


@dataclass(eq=False)
class _Run:
    """A run: the network, its optimizer, and how many steps are complete. It begins where OUT/state.pt ends."""

    network: NameClassifier | LineReader
    optimizer: torch.optim.AdamW
    step: int

    @staticmethod
    def open(kind: str, out: Path, seed: int) -> _Run:
        torch.manual_seed(seed)
        network = NETWORKS[kind]().train()
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

    def advance(self, seed: int, steps: int) -> tuple[float, float]:
        """One step of `steps`: what `learn` of the network returns."""
        torch.manual_seed(seed * 1_000_003 + self.step)  # dropout, the same after a resume
        for group in self.optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * _schedule(self.step, steps)
        loss, share = self.network.learn(seed, self.step)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach()), share


def train_network(
    kind: str, out: Path, steps: int, seed: int = 0, report: Callable[[str], None] = print
) -> NameClassifier | LineReader:
    """Train up to step `steps`, from the state in OUT if there is one; the weights are in OUT/KIND.safetensors.

    Args:
        kind: key of `NETWORKS`.
        out: folder of the run.
        steps: in all; the learning rate depends on it.
        seed: of weights, words and dropout.
        report: called with a line of text every `_SAVE_EVERY` steps.
    """
    run = _Run.open(kind, out, seed)
    start, figures = time.monotonic(), []
    while run.step < steps:
        figures.append(run.advance(seed, steps))
        if run.step % _SAVE_EVERY == 0 or run.step == steps:
            run.save(out)
            _write_weights(run.network, out / f"{kind}.safetensors")
            loss, share = np.mean(figures, axis=0)
            minutes = (time.monotonic() - start) / 60
            report(f"step {run.step}: loss {loss:.4f}, {run.network.figure} {share:.3f}, {minutes:.1f} minutes")
            figures = []
    return run.network.eval()


def _schedule(step: int, steps: int) -> float:
    """The learning rate of a step, relative to the largest: a warm-up and half a cosine."""
    if step < _WARM_UP:
        return (step + 1) / _WARM_UP
    return max(0.01, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _write_weights(network: nn.Module, file: Path) -> None:
    """Write the weights as float16."""
    from safetensors.torch import save_file

    state = network.state_dict().items()
    weights = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state}
    with atomic_write(file) as partial:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial)


def run_training(arguments: Sequence[str] | None = None) -> None:
    """The command line: train, print the loss, and write the weights."""
    parser = argparse.ArgumentParser(description="Train a network that reads text for ecg-vlm digitize.")
    parser.add_argument("network", choices=NETWORKS, help="of lead names, or of lines of print")
    parser.add_argument("out", type=Path, help="folder of the run; an interrupted run in it is continued")
    parser.add_argument("--steps", type=int, default=3000, help="default 3000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="on a shared machine one is quickest (default 1)")
    a = parser.parse_args(arguments)
    torch.set_num_threads(a.threads)
    assert len(NAME_CLASSES) == len(LEADS) + 1
    train_network(a.network, a.out, a.steps, a.seed, lambda line: print(line, flush=True))


if __name__ == "__main__":
    run_training()
