"""What a run leaves in its folder: recipe, facts, card and checkpoints, and when it may be resumed.

Light to import: the command line reads the facts of a run without torch. A checkpoint is written beside, flushed to
the disk, then renamed into place: it is there as a whole or not at all. Where a disk damages it all the same, its
checksums tell, and the run goes on from the one before, which stays until the run has finished.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from recipes.config import Recipe, load_recipe
from render.errors import InputError
from render.io import (
    apply_umask,
    atomic_write,
    read_json_object,
    require_empty,
    require_same_request,
    text_digest,
    write_json,
)

if TYPE_CHECKING:
    from recipes.packing import Plan

_FACTS, _RECIPE, _CARD, _PREFIX = "run.json", "recipe.yaml", "README.md", "checkpoint-"
_PAGES, _CHECKSUMS, _STATE = "pages.json", "checksums.json", "trainer_state.json"
_PER_STEP = "batches_per_step"

# What may differ when a run is resumed: none of it changes how a weight is trained.
_FREE_ON_RESUME = ("name", *(f"train.{key}" for key in ("max_minutes", "save_every", "validate_every", "log_every")))
_FREE_ON_RESUME += ("train.log_to", "train.workers", "data.validation", "train.keep", "train.patience")


# Facts


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a finished run, in the order in which `run.json` holds them."""

    name: str
    base: str
    """model.base of the recipe."""
    base_sha256: str
    """Of nano's weights, where nano is adapted; "" otherwise."""
    pages: int
    """Training pages."""
    records: tuple[str, ...]
    """Record ids of the training pages, sorted: an evaluation on these would flatter."""
    patients: tuple[str, ...]
    parameters: int
    trained_parameters: int
    adapted_layers: dict[str, int] = field(default_factory=dict)
    """Path of each adapted layer -> parameters of its adapter."""
    versions: dict[str, str]
    """Package -> version; and Python's."""
    seconds: float
    steps: int
    images: int = 0
    """Images in all batches that were trained on."""
    tokens: int = 0
    """Text tokens in them, without padding."""
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss since the entry before), as logged."""
    validation_losses: tuple[tuple[int, float], ...] = ()
    validation: tuple[dict[str, float], ...] = ()
    """Figures of each evaluation on held-out pages, with its "step"."""
    best_step: int = 0
    """The step whose weights these are, where not those of the last one (`train.keep`)."""


_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "tuple": list,
    "dict": dict,
}


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a finished run."""
    return (Path(folder) / _FACTS).is_file()


def read_run(folder: Path) -> RunFacts:
    """The facts of a finished run; keys of later versions are ignored.

    Raises:
        InputError: When `run.json` is missing or damaged, or lacks a key.
    """
    path = folder / _FACTS
    if not path.is_file():
        raise InputError(
            f"{folder}: no run.json; name the folder of a finished run of ecg-vlm finetune; one that did not finish "
            f"is resumed with --out {folder} --resume"
        )
    tree = read_json_object(path, "run the tuning again")
    values: dict[str, Any] = {}
    for key in fields(RunFacts):
        if key.name in tree:
            value, kind = tree[key.name], str(key.type).partition("[")[0]
            if not isinstance(value, _JSON_TYPES[kind]):
                raise InputError(f"{path}: {key.name}={str(value)[:40]!r}: expected a {kind}; run the tuning again")
            values[key.name] = _tuples(value) if isinstance(value, list) else value
        elif key.default is MISSING and key.default_factory is MISSING:
            raise InputError(f"{path}: the key {key.name!r} is missing; run the tuning again")
    return RunFacts(**values)


def _tuples(items: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in items)


# May the run start?


def open_run(recipe: Recipe, out: Path, *, resume: bool) -> RunFacts | None:
    """Refuse a folder in which a run by `recipe` may not go on. Returns the facts of a run that is finished already.

    Raises:
        InputError: For a folder that is not empty without `resume`, and for a run of another recipe.
    """
    if not (resume and (out / _RECIPE).is_file()):
        require_empty(out)
        return None
    first = load_recipe(out / _RECIPE)
    require_same_request(out, asdict(first), asdict(recipe), free=_FREE_ON_RESUME, mend=str(out / _RECIPE))
    return read_run(out) if is_run(out) else None


def batches_per_step(out: Path, recipe: Recipe, processes: int) -> int:
    """Batches of an optimizer step, over all processes: as many as when the run was begun, by however many processes.

    Raises:
        InputError: Where so many processes cannot have equal parts of them.
    """
    here = recipe.train.gradient_accumulation_steps * processes
    facts = read_json_object(out / _PAGES, "name a new folder") if (out / _PAGES).is_file() else {}
    count = facts.get(_PER_STEP, here)
    if not isinstance(count, int) or count < 1:
        raise InputError(f"{out / _PAGES}: {_PER_STEP}={str(count)[:40]!r}: expected a number; name a new folder")
    if count % processes:
        numbers = ", ".join(str(number) for number in range(1, count + 1) if count % number == 0)
        raise InputError(
            f"{out}: was begun with {count} batches a step, of which {processes} processes cannot have equal parts; "
            f"resume with as many processes as one of {numbers}, or name a new folder"
        )
    return count


def require_same_pages(out: Path, folders: str, batches: int = 1) -> None:
    """Refuse to resume with other training pages than at the start, by the manifests and shards of their folders.

    Writes down which they are where that is not done yet, and `batches`, of `batches_per_step`.
    """
    digest = text_digest(*(_pages_digest(folder.strip()) for folder in folders.split(",")))
    if not (out / _PAGES).is_file():
        write_json(out / _PAGES, {"digest": digest, _PER_STEP: batches})
    elif read_json_object(out / _PAGES, "name a new folder").get("digest") != digest:
        raise InputError(
            f"{out}: was started with other pages in {folders}; resume with the same ones, or name a new folder"
        )


def _pages_digest(name: str) -> str:
    from render.dataset.parquet import dataset_digest, is_dataset

    if is_dataset(name):
        return dataset_digest(name)
    from render.dataset.other_rows import rows_digest

    return rows_digest(name)


def require_same_plan(out: Path, plan: Plan) -> None:
    """Refuse to resume from a checkpoint of a run with another number of steps: the data have changed."""
    if not (whole := checkpoints(out)):
        return
    steps = read_json_object(whole[-1] / _STATE, "name a new folder")["max_steps"]
    if steps != plan.steps:
        raise InputError(
            f"{out}: was begun as a run of {steps} steps, and would now have {plan.steps}; resume with "
            f"the same pages, or name a new folder"
        )


# Checkpoints


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints in a run's folder, oldest first."""
    folders = [p for p in out.glob(f"{_PREFIX}*") if p.is_dir() and p.name.removeprefix(_PREFIX).isdigit()]
    return sorted(folders, key=step_of)


def remove_damaged_checkpoints(out: Path, note: Callable[[str], None]) -> None:
    """Remove the newest checkpoints as long as they are damaged, so that a run goes on from the last good one.

    note: called with a line for each.

    Raises:
        InputError: When no checkpoint is good.
    """
    whole = checkpoints(out)
    while whole and (damage := checkpoint_damage(whole[-1])):
        if len(whole) == 1:
            raise InputError(
                f"{whole[-1]}: {damage}, and there is no other checkpoint; name a new folder to start again"
            )
        note(f"{whole[-1]}: {damage}; going on from {whole[-2]}, the checkpoint before")
        _remove(out, whole.pop())


def checkpoint_damage(checkpoint: Path) -> str:
    """What is wrong with the files of a checkpoint, "" where nothing is."""
    try:
        state = read_json_object(checkpoint / _STATE, "")
        if not all(isinstance(state.get(key), int) for key in ("max_steps", "global_step")):
            return f"{_STATE} lacks its steps"
        if (checkpoint / _CHECKSUMS).is_file():
            checksums = read_json_object(checkpoint / _CHECKSUMS, "")
            bad = [name for name, value in checksums.items() if _checksum(checkpoint / name) != value]
        else:  # written by version 0.1
            bad = [path.name for path in checkpoint.glob("*.pt*") if not _is_whole_zip(path)]
    except (InputError, OSError) as error:
        return f"is damaged ({str(error).rstrip('; ')})"
    return f"{', '.join(sorted(bad))} is damaged" if bad else ""


def _checksum(path: Path) -> list[int]:
    """Bytes and CRC-32 of a file; [] where there is none."""
    if not path.is_file():
        return []
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return [path.stat().st_size, crc]


def _is_whole_zip(path: Path) -> bool:
    """Whether a file of torch.save's is complete."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, EOFError, ValueError):
        return False


def last_checkpoint_line(out: Path) -> str:
    """For messages: the last good checkpoint of a run."""
    whole = checkpoints(out)
    return f"the last good checkpoint is {whole[-1]}" if whole else "there is no checkpoint yet"


def staging(out: Path) -> Path:
    """Where a checkpoint lies while it is written. What a killed process leaves there is never read."""
    return out / ".unfinished"


def put_in_place(out: Path, step: int, best_step: int = 0) -> None:
    """Move a complete checkpoint from the staging folder into `out`, and remove all but the newest and the best of the
    others."""
    name = f"{_PREFIX}{step}"
    folder = staging(out) / name
    (folder / _CARD).write_text(_CHECKPOINT_CARD.format(step=step), encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    checksums = {path.relative_to(folder).as_posix(): _checksum(path) for path in files}
    (folder / _CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")
    apply_umask(folder)
    for path in (*folder.rglob("*"), folder):
        _flush(path)
    older = checkpoints(out)
    folder.replace(out / name)
    _flush(out)
    for checkpoint in older[:-1]:
        if step_of(checkpoint) != best_step:
            _remove(out, checkpoint)
    shutil.rmtree(staging(out), ignore_errors=True)


def update_state(checkpoint: Path, write: Callable[[str], None]) -> None:
    """Replace the state of a whole checkpoint, its log among it, where an evaluation has added to it.

    write: writes the new state into the file of that name.
    """
    checksums = read_json_object(checkpoint / _CHECKSUMS, "")
    with atomic_write(checkpoint / _STATE) as partial:
        write(str(partial))
    write_json(checkpoint / _CHECKSUMS, checksums | {_STATE: _checksum(checkpoint / _STATE)})


def remove_older_checkpoints(out: Path) -> None:
    """Remove all checkpoints but the last; for a run that has finished."""
    for checkpoint in checkpoints(out)[:-1]:
        _remove(out, checkpoint)
    shutil.rmtree(staging(out), ignore_errors=True)


def _remove(out: Path, checkpoint: Path) -> None:
    """Renamed first: a kill in the middle of the removal must not leave half a checkpoint under a good name."""
    staging(out).mkdir(exist_ok=True)
    old = staging(out) / f"old-{checkpoint.name}"
    shutil.rmtree(old, ignore_errors=True)
    checkpoint.replace(old)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_CHECKPOINT_CARD = """# Checkpoint after step {step}

Written by `ecg-vlm finetune`: weights, optimizer, schedule and random state, from which the same command with
`--resume` continues the run. The recipe is `recipe.yaml` in the folder above; the results are there when the run has
finished.
"""


# The card

WARNING = (
    "**Not a medical device, and not for diagnosis.** It is for research on reading ECG images; its answers can be "
    "wrong in any way, and no decision about a patient may rest on them."
)


def write_run_card(recipe: Recipe, facts: RunFacts, out: Path) -> None:
    """Write the README.md of a finished run: base, data, training, use and limits, without paths of this machine."""
    parts = [
        card_header(recipe, is_merged=recipe.lora is None),
        f"# {recipe.name}",
        f"A model that answers questions about images of ECGs: {describe(recipe)}. Written by `ecg-vlm finetune`. "
        + WARNING,
        _USE,
        "## Data\n\n" + describe_data(recipe, facts),
        "## Training\n\n" + describe_training(facts) + f"\n\n```yaml\n{recipe_text(recipe)}```",
        _LIMITS,
        *licence_notice(recipe),
        "## Versions\n\n" + describe_versions(facts),
    ]
    (out / _CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_USE = """## Use

```bash
ecg-vlm ask PAGE.png "What does this ECG show?" --model RUN
ecg-vlm evaluate RUN --data PAGES --out REPORT
ecg-vlm export RUN FOLDER            # for transformers and peft; --merge for the whole model
```

RUN is the folder of this file, PAGES a folder of held-out pages from `ecg-vlm render`."""

_LIMITS = """## Limits

Not evaluated yet: a loss says little about answers, `ecg-vlm evaluate` measures them. It knows the page layouts, styles
and wordings that it was tuned on; expect less on others. `run.json` lists the ids of the records and patients it was
tuned on: `ecg-vlm evaluate` refuses pages of these. Do not publish that file without need."""


def card_header(recipe: Recipe, *, is_merged: bool, results: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The metadata at the head of a README.md that huggingface.co reads. results: further keys, those of figures."""
    from recipes.model import NANO, on_hub

    licence = _licence(recipe)
    licence_name = licence.name if licence else "apache-2.0" if recipe.model.base == NANO else ""
    header = {
        **({"license": licence_name} if licence_name else {}),
        **({"base_model": recipe.model.base} if on_hub(recipe.model.base) else {}),
        "language": ["en"],
        "library_name": "transformers" if is_merged else "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["ecg", licence.tag if licence else "mllama", *([] if recipe.lora is None else ["lora"])],
        **results,
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def describe(recipe: Recipe, *, is_merged: bool = False) -> str:
    """What kind of model it is, in half a sentence."""
    if recipe.lora is None:
        return f"all weights trained from {'scratch' if recipe.model.from_scratch else base_name(recipe)}"
    return f"a LoRA adapter {'merged into' if is_merged else 'for'} {base_name(recipe)}"


@dataclass(frozen=True)
class _Licence:
    """The licence of a published base, as huggingface.co names it; the base's tag; what a card has to say."""

    name: str
    tag: str
    notice: str


# Llama: what the Llama 3.2 Community License (1.b) asks of a model tuned from its weights. Qwen3-VL: Apache-2.0 (4).
_LICENCES = {
    "llama-3.2": _Licence(
        "llama3.2",
        "mllama",
        "**Built with Llama.** Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta "
        "Platforms, Inc. All Rights Reserved. If you pass this model on, add a copy of that licence and begin the "
        'model\'s name with "Llama".',
    ),
    "qwen3-vl": _Licence(
        "apache-2.0",
        "qwen3_vl",
        "Tuned from Qwen3-VL, Copyright Alibaba Cloud, which is licensed under the Apache License, Version 2.0. If you "
        "pass this model on, add a copy of that licence and say that the weights were changed.",
    ),
}


def _licence(recipe: Recipe) -> _Licence | None:
    """That of the base, by its name; None for another base, such as nano or the folder of a run."""
    name = base_name(recipe).lower()
    return next((licence for part, licence in _LICENCES.items() if part in name), None)


def licence_notice(recipe: Recipe) -> list[str]:
    """What the licence of the base asks of a model tuned from it; nothing for bases that are not known."""
    licence = _licence(recipe)
    return ["## Licence\n\n" + licence.notice] if licence else []


def base_name(recipe: Recipe) -> str:
    """The base without the path of a folder on this machine."""
    from recipes.model import on_hub

    return recipe.model.base if on_hub(recipe.model.base) else Path(recipe.model.base).name


def describe_data(recipe: Recipe, facts: RunFacts) -> str:
    """Counts of the training data, never ids."""
    text = f"{facts.pages:,} pages, {len(facts.records):,} records, {len(facts.patients):,} patients."
    text += f" Folds {recipe.data.folds}." if recipe.data.folds else ""
    return text + (f" Left out: {', '.join(recipe.data.leave_out)}." if recipe.data.leave_out else "")


def describe_training(facts: RunFacts) -> str:
    """Steps, time, parameters and losses."""
    text = f"{facts.steps:,} steps in {facts.seconds:,.0f} s; "
    text += f"{facts.trained_parameters:,} of {facts.parameters:,} parameters trained."
    for losses, title in ((facts.losses, "Training loss"), (facts.validation_losses, "Held-out loss")):
        if losses:
            text += f" {title}: {losses[0][1]:.3f} at step {losses[0][0]}, {losses[-1][1]:.3f} at step {losses[-1][0]}."
    return text


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML without the folders of the machine it ran on."""
    tree = asdict(recipe)
    tree["data"] |= {"train": "", "validation": "", "leave_out": list(recipe.data.leave_out)}
    tree["model"]["base"] = base_name(recipe)
    return yaml.safe_dump(tree, sort_keys=False)


def describe_versions(facts: RunFacts) -> str:
    """Packages and their versions."""
    return ", ".join(f"{name} {version}" for name, version in facts.versions.items()) + "."
