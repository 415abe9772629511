"""The recipe: one YAML file that says which model is tuned, on what, and how.

Typed and immutable. An unknown key is refused with the nearest existing one, a value outside its range with the range.
Every key can be overridden as `section.key=value`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from render.errors import InputError
from render.io import atomic_write
from render.statements import STATEMENTS
from render.suggest import did_you_mean

_CONFIGS = files("recipes") / "configs"

RENAMED_KEYS = {"train.accumulate": "train.gradient_accumulation_steps"}
"""Keys of earlier versions and their names now. The old ones are still read: in recipe files, in overrides, and in the
recipe.yaml of a run that is resumed."""


Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelPart:
    """Which model is tuned."""

    base: str = "nano"
    """"nano" (ships with this package), a hub id such as meta-llama/Llama-3.2-11B-Vision-Instruct or
    Qwen/Qwen3-VL-8B-Instruct, a folder, or random:11b, random:qwen3-vl-8b (shapes with random weights, to measure)."""
    from_scratch: bool = False
    """True: nano's architecture with random weights, every parameter trained. For pre-training nano itself."""
    dtype: Dtype = "float32"
    """Type of the weights; bfloat16 on a GPU, float16 on one that has no bfloat16 (T4, V100)."""
    quantization: Literal["none", "nf4"] = "none"
    """nf4: 4-bit NormalFloat with double quantization (bitsandbytes); needs an adapter, the base stays frozen."""
    quantize: Literal["language", "all"] = "language"
    """What nf4 quantizes: all linear layers but the head, or only those behind the vision tower. The tower has the
    detail of the traces, and takes 1.2 GB more in 16 bits."""


@dataclass(frozen=True)
class LoraPart:
    """The adapter. `lm_head` and `embed_tokens` are never adapted, whatever is named here."""

    rank: int = field(default=16, metadata={"min": 1, "max": 1024})
    """Rank of the low-rank update."""
    alpha: int = field(default=32, metadata={"min": 1, "max": 4096})
    """The update is scaled by alpha / rank."""
    dropout: float = field(default=0.05, metadata={"min": 0.0, "max": 0.9})
    """Dropout before the low-rank update."""
    targets: Literal["all-linear", "language", "cross-attention", "vision", "attention", "mlp"] = "all-linear"
    """Which linear layers get an adapter; attention and mlp: those of both sides."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), for high ranks (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool = False
    """Learn the length of each weight row apart from its direction (Liu et al. 2024, arXiv 2402.09353): slower, and
    `doctor` does not count its memory."""
    plus: float = field(default=1.0, metadata={"min": 1.0, "max": 1000.0})
    """LoRA+: the learning rate of the second matrix as a multiple of the first's (Hayou et al. 2024, arXiv 2402.12354,
    recommend 16)."""


@dataclass(frozen=True)
class DataPart:
    """What it is tuned on."""

    train: str = ""
    """Training pages; several of them joined by commas: a folder made by ecg-vlm render; TRL rows (messages, images) as
    .parquet, .jsonl or a folder of them; a LLaVA .json with its images beside it; or a hub data set, hf://OWNER/NAME.
    Rows that share an image are packed behind it."""
    validation: str = ""
    """Held-out pages for the loss shown while training, in any form of `train`; empty for none. Pages made by ecg-vlm
    render give a macro-AUC too."""
    folds: str = ""
    """Train on these PTB-XL folds only, for example 1-8; empty for every page of the folder."""
    leave_out: tuple[str, ...] = ()
    """Statement codes that no training dialogue is about: dialogues about them are dropped."""


@dataclass(frozen=True)
class TrainPart:
    """How it is tuned."""

    epochs: float = field(default=1.0, metadata={"min": 0.0, "max": 10000.0})
    """Passes over the training pages."""
    max_steps: int = field(default=0, metadata={"min": 0, "max": 10_000_000})
    """Exactly this many optimizer steps, whatever `epochs` says; 0: `epochs` decides. The schedule ends there too."""
    max_minutes: float = field(default=0.0, metadata={"min": 0.0, "max": 10_000_000.0})
    """Stop after this time with a checkpoint, as Ctrl-C does; --resume continues. 0 for no limit."""
    images_per_batch: int = field(default=8, metadata={"min": 1, "max": 4096})
    """Most pages in one forward pass of one device."""
    tokens_per_batch: int = field(default=0, metadata={"min": 0, "max": 10_000_000})
    """Most text tokens in one forward pass, padding included; 0 for no limit. Longer pages get several rows."""
    gradient_accumulation_steps: int = field(default=1, metadata={"min": 1, "max": 4096})
    """Batches whose gradients are summed for one optimizer step. (Version 0.1: `accumulate`.)"""
    learning_rate: float = field(default=2e-4, metadata={"min": 1e-8, "max": 1.0})
    """Peak learning rate (AdamW)."""
    neftune: float = field(default=0.0, metadata={"min": 0.0, "max": 1000.0})
    """NEFTune: alpha of the noise on the text embeddings of training batches (Jain et al. 2023, arXiv 2310.05914, take
    5); 0 for none."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning-rate schedule after warm-up."""
    warmup: float = field(default=0.03, metadata={"min": 0.0, "max": 0.9})
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = field(default=0.0, metadata={"min": 0.0, "max": 1.0})
    """AdamW weight decay."""
    optimizer: Literal["adamw_torch", "paged_adamw_8bit", "muon"] = "adamw_torch"
    """muon: `recipes.optim`, for a model that is trained whole; on nano it needs half the steps of AdamW.
    paged_adamw_8bit (bitsandbytes): moments in 8 bits, moved to main memory when the GPU's runs out."""
    max_grad_norm: float = field(default=1.0, metadata={"min": 0.0, "max": 1000.0})
    """Gradients are clipped to this norm."""
    reading: float = field(default=0.0, metadata={"min": 0.0, "max": 1000.0})
    """Weight of the waveform heads' loss beside the answers' (`recipes.waveform_heads`); 0 for none. Needs pages
    rendered with --signal."""
    patches: int = field(default=0, metadata={"min": 0, "max": 10_000})
    """Patches of a tile that the tower sees in training, those with the most ink: most of a page is paper, and with
    half of the patches nano's step takes .6 of the time (`recipes.vision_tower.keep_inkiest_patches`). Finish with a
    run that sees all. 0 for all. With lora: null."""
    mixed_precision: bool = False
    """Multiply in bfloat16 while the weights stay float32: on a CPU with AVX512-BF16 products are five times as fast,
    and a step of nano's tower nearly twice. No effect on other CPUs, where products would be many times slower."""
    seed: int = field(default=0, metadata={"min": 0, "max": 2**31 - 1})
    """Seed of initial weights, data order and dropout."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, far less memory. For the 11 B model. The vision tower's too,
    where it is trained; a frozen one has none."""
    save_every: int = field(default=500, metadata={"min": 1, "max": 1_000_000})
    """Steps between two checkpoints, from which --resume continues."""
    log_every: int = field(default=10, metadata={"min": 1, "max": 100_000})
    """Steps between two lines of the log."""
    log_to: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where losses and figures are shown; wandb and trackio have to be installed."""
    validate_every: int = field(default=0, metadata={"min": 0, "max": 1_000_000})
    """Steps between two evaluations on the held-out pages; 0 for one at the end."""
    keep: Literal["last", "loss", "macro_auc"] = "last"
    """Which weights the run ends with: those of its last step, or of the evaluation with the least held-out loss or the
    highest macro-AUC."""
    patience: int = field(default=0, metadata={"min": 0, "max": 1_000_000})
    """End the run after so many evaluations without a better one, by the figure of `keep`; 0: never."""
    workers: int = field(default=0, metadata={"min": 0, "max": 64})
    """Data loader processes that decode pages beside the training process."""


@dataclass(frozen=True)
class Recipe:
    """A whole recipe. `lora` is None when every parameter is trained."""

    name: str
    model: ModelPart = field(default_factory=ModelPart)
    lora: LoraPart | None = field(default_factory=LoraPart)
    data: DataPart = field(default_factory=DataPart)
    train: TrainPart = field(default_factory=TrainPart)

    def __post_init__(self) -> None:
        """Checks across fields, before anything heavy starts."""
        if self.model.quantization != "none" and self.lora is None:
            raise InputError("recipe: model.quantization=nf4 needs a lora section: 4-bit weights cannot be trained")
        if self.model.from_scratch and (self.lora is not None or self.model.base != "nano"):
            raise InputError("recipe: model.from_scratch=true needs model.base=nano and lora: null")
        if self.train.reading and self.lora is not None:
            raise InputError("recipe: train.reading needs lora: null; an adapter's checkpoints do not hold its heads")
        if self.train.optimizer == "muon" and self.lora is not None:
            raise InputError("recipe: train.optimizer=muon needs lora: null; it is designed for whole matrices")
        if (self.train.keep != "last" or self.train.patience) and not (
            self.train.keep != "last" and self.train.validate_every and self.data.validation
        ):
            raise InputError(
                f"recipe: train.keep={self.train.keep}, train.patience={self.train.patience}: a best step needs "
                f"train.keep=loss or macro_auc, data.validation and train.validate_every"
            )
        if self.train.patches and self.lora is not None:
            raise InputError("recipe: train.patches needs lora: null; an adapter needs the patches that the base sees")
        if self.train.patches % 8 == 7:
            raise InputError(f"recipe: train.patches={self.train.patches}: Mllama masks 8k - 1 patches; take one less")
        unknown = [code for code in self.data.leave_out if code not in STATEMENTS]
        if unknown:
            raise InputError(
                f"recipe: data.leave_out: {unknown[0]!r} is no statement code{did_you_mean(unknown[0], STATEMENTS)}"
            )


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a file, or by the name of one that ships ("quickstart"), with `section.key=value` overrides.

    Raises:
        InputError: Naming file, key, value and the mend.
    """
    text, where = _find(path)
    tree = _yaml(text, where)
    if not isinstance(tree, dict):
        raise InputError(f"{where}: a recipe is a mapping with the sections model, lora, data, train")
    _rename_keys(tree, str(where))
    for override in overrides:
        _apply(tree, override)
    _rename_keys(tree, str(where))  # an override may give a whole section
    tree.setdefault("name", Path(where).stem)
    recipe = _build(Recipe, tree, where, "")
    assert isinstance(recipe, Recipe)
    return recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML."""
    tree = asdict(recipe)
    tree["data"]["leave_out"] = list(recipe.data.leave_out)
    with atomic_write(path) as partial:
        partial.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def shipped_recipes() -> list[str]:
    """Names of the recipes in this package."""
    return sorted(item.name.removesuffix(".yaml") for item in _CONFIGS.iterdir() if item.name.endswith(".yaml"))


def _find(path: str | Path) -> tuple[str, str]:
    """The text of a recipe and the name to show in messages: a file first, then one that ships."""
    path = Path(path)
    name = path.name.removesuffix(".yaml")
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    if (
        str(path) in (name, f"{name}.yaml", f"recipes/{name}.yaml", f"recipes/configs/{name}.yaml")
        and name in shipped_recipes()
    ):
        return (_CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml"
    raise InputError(f"{path}: no such recipe; these ship: {', '.join(shipped_recipes())}")


_LONGEST_YAML, _DEEPEST_YAML, _LARGEST_NUMBER = 100_000, 10, 1 << 63


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, which grow a few bytes to gigabytes, and without dates, which no key holds."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Raises `InputError` for an alias and for deep nesting."""
        if self.check_event(yaml.AliasEvent):
            raise InputError("aliases (*name) are not read; write the value itself")
        self._depth += 1
        if self._depth > _DEEPEST_YAML:
            raise InputError(f"more than {_DEEPEST_YAML} levels; a recipe has sections of keys and no more")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _yaml(text: str, where: str, fault: str = "not valid YAML") -> Any:
    """The value of a YAML text. Raises `InputError` that begins with `where`, in one line."""
    if len(text) > _LONGEST_YAML:
        raise InputError(f"{where}: more than {_LONGEST_YAML:,} characters; a recipe is shorter")
    try:
        return yaml.load(text, _PlainLoader)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:  # PyYAML raises whatever its constructors trip over: IndexError, OverflowError ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where}: {fault}: {reason[:200]}") from error


def in_message(value: object) -> str:
    """A value for a message, at most 60 characters of it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a very long number"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _rename_keys(tree: dict[str, Any], where: str) -> None:
    for old, new in RENAMED_KEYS.items():
        section, _, old_key = old.partition(".")
        new_key = new.removeprefix(f"{section}.")
        values = tree.get(section)
        if isinstance(values, dict) and old_key in values:
            if new_key in values:
                raise InputError(f"{where}: {old} is the former name of {new}; give one of the two")
            values[new_key] = values.pop(old_key)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    parts = RENAMED_KEYS.get(key, key).split(".")
    if not separator or not all(parts):
        raise InputError(f"override {override!r}: write it as section.key=value, for example train.max_steps=10")
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise InputError(f"override {override!r}: {part} is a value, not a section")
        node = child
    content = _yaml(value, f"override {in_message(override)}", f"{in_message(value)} is not a YAML value")
    # YAML folds line breaks of a plain text and ends it before " #": a folder may be called so.
    node[parts[-1]] = value if isinstance(content, str) and value.strip()[0] not in "'\"!|>" else content


def _build(kind: type[Any], tree: Any, where: str, prefix: str) -> Any:
    if not isinstance(tree, Mapping):
        raise InputError(
            f"{where}: {prefix.rstrip('.') or 'recipe'}: expected a section with keys, found {in_message(tree)}"
        )
    hints = typing.get_type_hints(kind)
    keys = {f.name: f for f in fields(kind)}
    for key in tree:
        if key not in keys:
            hint = did_you_mean(f"{prefix}{key}", [f"{prefix}{name}" for name in keys])
            raise InputError(f"{where}: unknown key {prefix}{str(key)[:60]}{hint}")
    values = {
        key: _value(hints[key], value, keys[key].metadata, where, f"{prefix}{key}") for key, value in tree.items()
    }
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, limits: Mapping[str, Any], where: str, key: str) -> Any:
    options = typing.get_args(hint)
    if isinstance(hint, types.UnionType):  # `Part | None`
        if value is None:
            return None
        hint = next(option for option in options if option is not type(None))
    if is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, where, f"{key}.")
    if typing.get_origin(hint) is Literal:
        if value not in options:
            names = ", ".join(map(str, options))
            raise InputError(
                f"{where}: {key}={in_message(value)}: expected one of {names}{did_you_mean(str(value), options)}"
            )
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{where}: {key}={in_message(value)}: expected a list of texts")
        return tuple(value)
    return _scalar(hint, value, limits, where, key)


def _scalar(hint: Any, value: Any, limits: Mapping[str, Any], where: str, key: str) -> Any:
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 2e-4 as text
        with suppress(ValueError):
            value = float(value)
    if hint is str and (value is None or (type(value) is int and abs(value) < _LARGEST_NUMBER)):
        # `data.folds=9`, `data.validation=`
        value = "" if value is None else str(value)
    if hint is float and type(value) is int and abs(value) < _LARGEST_NUMBER:
        value = float(value)
    if type(value) is not hint:
        raise InputError(f"{where}: {key}={in_message(value)}: expected {_KIND_NAMES[hint]}")
    if "min" in limits and not limits["min"] <= value <= limits["max"]:  # or NaN
        raise InputError(f"{where}: {key}={in_message(value)}: must lie between {limits['min']} and {limits['max']}")
    return value


_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
