"""Auxiliary heads on the vision tower: for every patch, its lead, its millivolts and the beats around it.

An answer teaches a tower little: one bit for a question, through the whole language model. The page itself teaches it
thousands of numbers. Heads on the tower's output are trained along with the answers and are not part of the result:

- each patch through which a trace runs predicts which of the twelve leads it is, and the voltage in each of `COLUMNS`
  columns of the patch, in mV relative to the lead's median (a page does not show where zero is);
- each of these patches also predicts its place between two beats: the time since the last R peak, the time until the
  next, and the interval between them relative to the page's median. Early beats, pauses and irregular rhythms show in
  a comparison of patches far from each other, which answers alone teach slowly;
- the tiles' class tokens predict which of the 71 statements are present. That head is linear: what it uses is
  accessible to the language model, whose cross-attention sees the tower's output through linear maps too.

The targets come from the row's `signal`, `geometry` and `statements` (`ecg-vlm render --signal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.mllama.image_processing_pil_mllama import (
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

from recipes.packing import IGNORE_INDEX, Batch
from render.dataset.signal_column import signal_of
from render.measurements import beats
from render.pages.geometry import LeadTrace, PageGeometry, transform_points
from render.record import LEADS, LOW_RATE_HZ
from render.statements import STATEMENTS

COLUMNS = 28
"""Voltages of a patch: on paper at 25 mm/s and 10 mm a patch, one in 14 ms."""

HEADS = "reading.safetensors"
"""File of the heads in a run's folder, for a further run on the same model; nothing else needs it."""

IN_MODEL = "reading."
"""Prefix of the names of the heads' weights in the model that is trained with them."""

_PREFIX = "reading_"
_BEATS = 3  # numbers of a patch about the beats around it
_BEATS_UNIT = 0.05  # what counts as 1 in their loss: 50 ms, or an interval a twentieth longer than the median
_MV = 0.2  # what counts as 1 in the loss of voltages: small waves weigh as squares, QRS complexes as lengths
_MOST_MV = 5.0
_STATEMENTS_WEIGHT = 10.0  # a mean over 71 answers of which most are "no" is small beside the other two


def targets(row: Mapping[str, Any], processor: Any, patch: int) -> Batch:
    """The targets of one page.

    reading_lead: (tiles, patches) int64, index into `LEADS`, or `IGNORE_INDEX`. reading_mv: (tiles, patches, `COLUMNS`)
    float32, NaN without a trace. reading_beats: (tiles, patches, 3) float32, NaN likewise and where the page shows no
    beat before or after: seconds since the last R peak and until the next, from the sample nearest to the patch's
    middle, and the logarithm of their RR interval over the page's median. reading_statements: (71,) float32, 0 or 1.
    Tiles and patches as the tower counts them, patches without the class token. An unreadable page has no targets:
    `IGNORE_INDEX` and NaN throughout.
    """
    side, most = processor.image_processor.size["height"], processor.image_processor.max_image_tiles
    across = side // patch
    lead = np.full((most, across, across), IGNORE_INDEX, np.int64)
    mv = np.full((most, across, across, COLUMNS), np.nan, np.float32)
    near_beats = np.full((most, across, across, _BEATS), np.nan, np.float32)
    readable = not row.get("unreadable")
    if readable:
        geometry = PageGeometry.from_json(row["geometry"])
        signal = signal_of(row["signal"])
        to_canvas, tiles_wide = _to_canvas(geometry, side, most)
        around = _around(signal, geometry)
        for trace in geometry.leads:
            _fill_patches(
                lead, mv, near_beats, trace, signal, around, to_canvas, (patch, tiles_wide), geometry.sampling_rate
            )
    present = set(row["statements"])
    return {
        "reading_lead": torch.from_numpy(lead.reshape(most, -1)),
        "reading_mv": torch.from_numpy(mv.reshape(most, -1, COLUMNS)),
        "reading_beats": torch.from_numpy(near_beats.reshape(most, -1, _BEATS)),
        "reading_statements": torch.tensor([float(code in present) if readable else np.nan for code in STATEMENTS]),
    }


def _to_canvas(geometry: PageGeometry, side: int, most: int) -> tuple[NDArray[np.float64], int]:
    """The homography from the page's pixels to the tiles' canvas, and how many tiles the canvas is wide."""
    height, width = geometry.height, geometry.width
    canvas_height, canvas_width = get_optimal_tiled_canvas(height, width, most, side)
    new_height, new_width = get_image_size_fit_to_canvas(height, width, canvas_height, canvas_width, side)
    scale = np.diag([new_width / width, new_height / height, 1.0])
    return scale @ geometry.homography, int(canvas_width) // side


def _samples(trace: LeadTrace, rate: float) -> tuple[int, int]:
    """The first sample that a trace shows, at `LOW_RATE_HZ`, and the one after its last."""
    return round(trace.start_sample / rate * LOW_RATE_HZ), round(trace.end_sample / rate * LOW_RATE_HZ)


def _around(signal: NDArray[np.float32], geometry: PageGeometry) -> NDArray[np.float32]:
    """(samples, 3): the targets about the beats around each sample; NaN before the page's first beat and from its last
    on, and everywhere where it shows fewer than three."""
    firsts, lasts = zip(*(_samples(trace, geometry.sampling_rate) for trace in geometry.leads), strict=True)
    middles = beats(signal, LOW_RATE_HZ)
    middles = middles[(middles >= min(firsts)) & (middles < max(lasts))]
    numbers = np.full((signal.shape[1], _BEATS), np.nan, np.float32)
    if len(middles) > 2:
        long = np.diff(middles)
        at = np.arange(middles[0], middles[-1])
        behind = np.searchsorted(middles, at, side="right")
        ratio = np.log(long / np.median(long))[behind - 1]
        numbers[at] = np.stack(
            [(at - middles[behind - 1]) / LOW_RATE_HZ, (middles[behind] - at) / LOW_RATE_HZ, ratio], axis=1
        )
    return numbers


def _fill_patches(
    lead: NDArray[np.int64],
    mv: NDArray[np.float32],
    near_beats: NDArray[np.float32],
    trace: LeadTrace,
    signal: NDArray[np.float32],
    around: NDArray[np.float32],
    to_canvas: NDArray[np.float64],
    tiling: tuple[int, int],
    rate: float,
) -> None:
    """Write one trace into the patches through which it runs."""
    patch, tiles_wide = tiling
    tiles, across = lead.shape[:2]
    first, last = _samples(trace, rate)
    lead_mv = signal[LEADS.index(trace.lead), first:last]
    seconds = (np.arange(first, first + len(lead_mv)) + 0.5) / LOW_RATE_HZ
    valid = np.isfinite(lead_mv)
    if not valid.any():
        return
    lead_mv, seconds, around = lead_mv[valid], seconds[valid], around[first : first + len(lead_mv)][valid]
    voltages = np.clip(lead_mv - np.median(lead_mv), -_MOST_MV, _MOST_MV)
    columns, rows = transform_points(to_canvas, trace.to_page(seconds, lead_mv)).T / patch  # in patches of the canvas
    inside = (columns >= 0) & (rows >= 0) & (columns < across * tiles_wide) & (rows < across * (tiles // tiles_wide))
    column, row = columns[inside].astype(int), rows[inside].astype(int)
    tile, part = row // across * tiles_wide + column // across, ((columns[inside] - column) * COLUMNS).astype(int)
    patches = (tile * across + row % across) * across + column % across
    at = patches * COLUMNS + part
    counts = np.bincount(at, minlength=mv.size).reshape(-1, COLUMNS)
    sums = np.bincount(at, voltages[inside], minlength=mv.size).reshape(-1, COLUMNS)
    lead.reshape(-1)[patches] = LEADS.index(trace.lead)
    has_trace = counts.any(axis=1)
    mv.reshape(-1, COLUMNS)[has_trace] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)[has_trace]
    middle_first = np.lexsort((np.abs(columns[inside] - column - 0.5), patches))
    own_patches, firsts = np.unique(patches[middle_first], return_index=True)
    near_beats.reshape(-1, _BEATS)[own_patches] = around[inside][middle_first[firsts]]


class Reading(nn.Module):
    """The heads, on the output of a vision tower, which a hook records. Called with a batch's targets: the losses."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        width = vision.config.vision_output_dim
        self.traces = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(LEADS) + COLUMNS + _BEATS))
        self.statements = nn.Linear(width, len(STATEMENTS))
        self._tower_output: list[tuple[Tensor, Tensor | None]] = []  # last hidden state, indices of its patches
        vision.register_forward_hook(self._record)

    def load_from(self, folder: Path | None) -> None:
        """Load the heads of an earlier run from its folder, if it has any: for a run on that run's model."""
        if folder is not None and (folder / HEADS).is_file():
            weights = load_file(folder / HEADS)
            self.load_state_dict({name.removeprefix(IN_MODEL): value for name, value in weights.items()})

    def _record(self, vision: Any, arguments: Any, output: Any) -> None:
        if self.training:
            self._tower_output[:] = [(output.last_hidden_state, getattr(vision, "patch_indices", None))]

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses by name. batch: `targets` of each row, stacked, and aspect_ratio_mask (rows, 1, tiles)."""
        output, indices = self._tower_output.pop()
        hidden = output[:, 0].float()  # (rows, tiles, 1 + patches, width); a row has one image
        lead, mv, beats = batch["reading_lead"], batch["reading_mv"], batch["reading_beats"]
        if indices is not None:  # `recipes.vision_tower.keep_inkiest_patches`
            indices = indices.view(*lead.shape[:2], -1)
            lead = lead.gather(2, indices)
            mv, beats = (t.gather(2, indices[..., None].expand(-1, -1, -1, t.shape[-1])) for t in (mv, beats))
        has_image = batch["aspect_ratio_mask"][:, 0, :, None].to(hidden.dtype)
        page = (hidden[:, :, 0] * has_image).sum(dim=1) / has_image.sum(dim=1)
        of_patches = self.traces(hidden[:, :, 1:]).float()
        leads, voltages, around = of_patches.split([len(LEADS), COLUMNS, _BEATS], dim=-1)
        present = self.statements(page).float()
        lead_losses = functional.cross_entropy(
            leads.flatten(0, 2), lead.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
        )
        return {
            "voltages": _mean(functional.smooth_l1_loss, voltages, mv / _MV),
            "beats": _mean(functional.smooth_l1_loss, around, beats / _BEATS_UNIT),
            "leads": lead_losses.sum() / lead.ne(IGNORE_INDEX).sum().clamp(min=1),
            "statements": _STATEMENTS_WEIGHT
            * _mean(functional.binary_cross_entropy_with_logits, present, batch["reading_statements"]),
        }


def _mean(loss: Any, predictions: Tensor, truth: Tensor) -> Tensor:
    """The mean loss where the truth is finite; 0 in a batch where it never is."""
    valid = truth.isfinite()
    mean: Tensor = loss(predictions[valid], truth[valid], reduction="sum") / valid.sum().clamp(min=1)
    return mean


def reading_of(model: Any) -> Any:
    """The heads of a model, however it is wrapped."""
    return next(module for module in model.modules() if isinstance(module, Reading))


def split_targets(tensors: Mapping[str, Tensor], prefix: str = _PREFIX) -> tuple[Batch, Batch]:
    """The tensors of a batch that are not for the heads, and those that are; with another prefix, of model weights."""
    of_heads = {name: value for name, value in tensors.items() if name.startswith(prefix)}
    return {name: value for name, value in tensors.items() if name not in of_heads}, of_heads
