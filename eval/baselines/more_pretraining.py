"""The pre-training of MoRE on pairs, and what its towers then say: of statements, of pairs, of single tokens.

A step draws pairs; the loss is that of note and ECG, plus that of note and picture for the pairs that have one. The
text tower is RoBERTa with LoRA by its hub id or folder, or, where nothing is named, a small RoBERTa that learns the
reports' own words here, as wide and as deep as the ECG's blocks, all of it trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, RobertaConfig, RobertaModel
from transformers.utils.logging import disable_progress_bar

from eval.baselines import checkpoint
from eval.baselines.baseline import LEAD_COUNT
from eval.baselines.checkpoint import Request, TrainedBaseline
from eval.baselines.more import (
    CLASSIFIERS,
    EMBEDDING,
    IMAGE_SIZE,
    SIZES,
    DropKey,
    MoreSize,
    Projection,
    contrast,
    ecg_encoder,
    image_encoder,
    inputs,
    relevance,
)
from eval.baselines.pairs import Pairs
from eval.baselines.pretraining import load_encoder
from eval.baselines.settings import SETTINGS, ContrastiveSettings
from eval.baselines.train import SECONDS, half_cosine, ten_seconds
from eval.metrics.retrieval import Recall, recall
from render.errors import InputError
from render.io import atomic_write, read_json_object, write_json
from render.record import LOW_RATE_HZ, EcgRecord
from render.statements import STATEMENTS, task_classes

_WORDS, _TOWERS, _ABOUT = "words.json", "towers.safetensors", "pretraining.json"
_LORA = LoraConfig(r=16, lora_alpha=8, lora_dropout=0.1, target_modules=["query", "value"])
_LONGEST = 128  # tokens of a report
_VOCABULARY = 2000  # of the small tower
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # the numbers that RoBERTa expects
_CYCLES = 3  # of the learning rate, each twice as long as the one before
_GREY_LEVELS = 255.0
_BETWEEN_CLAUSES = re.compile(r"[.;\n]+|\s{2,}")


class TextEncoder(nn.Module):
    """Tokens and mask (B, T) -> (B, 768) unit vectors, from the first token."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model, self.projection = model, Projection(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.projection(self.model(tokens, mask).last_hidden_state[:, 0])  # type: ignore[no-any-return]


class More(nn.Module):
    """The encoders. image: None where no pair had one."""

    def __init__(self, size: MoreSize, text: TextEncoder, has_images: bool) -> None:
        super().__init__()
        self.ecg, self.text = ecg_encoder(size), text
        self.image = image_encoder(size) if has_images else None


class MorePretraining:
    """See `eval.baselines.pretraining.Pretraining`. Raises `InputError` for a text tower that cannot be opened, and for
    fewer than two pairs."""

    shape = (LEAD_COUNT, SECONDS * LOW_RATE_HZ)

    def __init__(self, pairs: Pairs, name: str, settings: ContrastiveSettings) -> None:
        if len(pairs) < 2 or settings.batch < 2:
            raise InputError(f"{name}: {min(len(pairs), settings.batch)} pair a step; a contrast takes two and more")
        self._name, self._pairs, self._settings = name, pairs, settings
        self._reports = [row.report for row in pairs.rows]
        self.tokenizer = _tokenizer(settings.text) if settings.text else own_tokenizer(self._reports)
        self.network = _network(name, settings.text, len(self.tokenizer), any(row.image for row in pairs.rows))
        self.encoder = self.network.ecg
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=settings.lr, weight_decay=settings.weight_decay)

    def signal(self, record: EcgRecord) -> NDArray[np.float32]:
        """(12, 1000), as `eval.baselines.more.inputs` makes it."""
        return np.asarray(inputs(ten_seconds(record)[None])[0].numpy())

    def fit(self, signals: NDArray[np.float16]) -> None:
        """Nothing is computed."""

    def step(self, signals: NDArray[np.float16], number: int) -> float:
        """Train on one batch; the loss."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, number])
        torch.manual_seed(int(rng.integers(2**63)))  # of dropout
        rows = np.sort(rng.choice(len(signals), min(settings.batch, len(signals)), replace=False))
        reports = np.array([self._reports[row] for row in rows])
        parts = np.array([part_of(report, rng) for report in reports])
        network = self.network.train()
        notes = network.text(*_tokens(self.tokenizer, list(parts)))
        same = torch.from_numpy((reports[:, None] == reports) | (parts[:, None] == parts)).float()
        loss = contrast(notes, network.ecg(torch.from_numpy(signals[rows].astype(np.float32))), same)
        pictured = [i for i, row in enumerate(rows) if self._pairs.rows[row].image]
        if network.image is not None and len(pictured) > 1:
            images = network.image(_images([self._pairs.rows[rows[i]].image for i in pictured]))
            loss = loss + contrast(notes[pictured], images, same[pictured][:, pictured])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, settings)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def save(self, folder: Path) -> dict[str, Any]:
        """The other towers, the words of the text tower, and the zero-shot classifier as a trained baseline."""
        network = self.network.eval()
        kept = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        kept |= {name for name, _ in network.named_buffers()}
        kept -= {f"ecg.{name}" for name in self.encoder.state_dict()}  # in a file of its own
        state = {name: values.contiguous() for name, values in network.state_dict().items() if name in kept}
        if not self._settings.text:
            words = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
            write_json(folder / _WORDS, {key: words[key] for key in ("vocab", "merges")})
        with atomic_write(folder / _TOWERS) as path:
            save_file(state, path)
        pairs, classes = self._pairs, task_classes("all")
        classifier = CLASSIFIERS[self._name].network(len(classes))
        classifier.get_submodule("encoder").load_state_dict(network.ecg.state_dict())
        weight, bias = classifier.get_parameter("head.weight"), classifier.get_parameter("head.bias")
        with torch.no_grad():
            weight.copy_(statement_vectors(network, self.tokenizer, classes))
            bias.zero_()
        request = Request(self._name, classes, SETTINGS[self._name], len(pairs), pairs.digest())
        ids = tuple(dict.fromkeys(row.record_id for row in pairs.rows))
        checkpoint.save(TrainedBaseline(classifier.eval(), request, (), ids, pairs.patients(ids)), folder)
        return {"images": network.image is not None}


def learning_rate(step: int, settings: ContrastiveSettings) -> float:
    """Of a step, from 0: down on half a cosine, and again from the top, each time twice as long as before."""
    length = settings.steps / (2**_CYCLES - 1)
    for _ in range(_CYCLES - 1):
        if step < length:
            break
        step, length = step - round(length), 2 * length
    return half_cosine(settings.lr, 0.0, step / length)


def part_of(report: str, rng: np.random.Generator) -> str:
    """The whole report or, every second time, some of its clauses: a statement's name is as short."""
    clauses = [clause for clause in _BETWEEN_CLAUSES.split(report) if clause.strip()]
    stays = rng.random(len(clauses)) < 0.5
    if len(clauses) < 2 or rng.random() < 0.5 or not stays.any():
        return report
    return ". ".join(clause for clause, stay in zip(clauses, stays, strict=True) if stay)


class LoadedMore(NamedTuple):
    """What `pretrain` wrote."""

    network: More
    tokenizer: Any


def load_more(folder: Path) -> LoadedMore:
    """Read the towers of a pre-training. Raises `InputError` naming the file when a part is missing or damaged."""
    about = read_json_object(folder / _ABOUT, "name a folder that ecg-vlm baseline pretrain wrote")
    name = about.get("name")
    if not isinstance(name, str) or name not in SIZES:
        raise InputError(f"{folder}: of {name}, which has no text tower; name a pre-training of {' or '.join(SIZES)}")
    try:
        text = about["settings"]["text"]
        if not isinstance(text, str):
            raise ValueError(f"settings.text is {text!r}")
        if text and not Path(text).is_dir():  # it was downloaded for the pre-training
            text = snapshot_download(text, local_files_only=True)
        words = {} if text else read_json_object(folder / _WORDS, "pre-train it again")
        tokenizer = _tokenizer(text) if text else _of_words(words["vocab"], words["merges"])
        network = _network(name, text, len(tokenizer), about["images"])
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        network.ecg.load_state_dict(load_encoder(folder, name))
        frozen |= {f"ecg.{name}" for name in network.ecg.state_dict()}
        missing, unexpected = network.load_state_dict(load_file(folder / _TOWERS), strict=False)
        if unexpected or set(missing) - frozen:
            raise ValueError("its tensors are not those of this network")
    except InputError:
        raise
    except Exception as error:  # tokenizers and transformers raise whatever a damaged file leads to
        raise InputError(f"{folder}: not a pre-training of {name} ({error}); pre-train it again") from error
    return LoadedMore(network.eval(), tokenizer)


@torch.no_grad()
def statement_vectors(network: More, tokenizer: Any, classes: Sequence[str]) -> Tensor:
    """(71, 768): what the text tower makes of each statement's name, in English and German, less the mean of all."""
    names = [name for code in classes for name in (STATEMENTS[code].name, STATEMENTS[code].german)]
    vectors = network.text(*_tokens(tokenizer, names)).view(len(classes), 2, EMBEDDING).mean(dim=1)
    return nn.functional.normalize(vectors, dim=1) - nn.functional.normalize(vectors, dim=1).mean(dim=0)


@torch.inference_mode()
def embed_pairs(more: LoadedMore, pairs: Pairs, batch: int = 32) -> dict[str, NDArray[np.float32]]:
    """(n, 768) unit vectors of all pairs by kind: "ecg", "report" and, of a network with pictures, "image", whose rows
    are NaN where a pair has none."""
    vectors: dict[str, list[NDArray[np.float32]]] = {}
    for start in range(0, len(pairs), batch):
        rows = range(start, min(start + batch, len(pairs)))
        signals = np.stack([ten_seconds(pairs.read(i)) for i in rows])
        parts = {"ecg": more.network.ecg(inputs(signals))}
        parts["report"] = more.network.text(*_tokens(more.tokenizer, [pairs.rows[i].report for i in rows]))
        if more.network.image is not None:
            images = torch.full((len(rows), EMBEDDING), torch.nan)
            if pictured := [i for i in rows if pairs.rows[i].image]:
                images[[i - start for i in pictured]] = more.network.image(
                    _images([pairs.rows[i].image for i in pictured])
                )
            parts["image"] = images
        for kind, part in parts.items():
            vectors.setdefault(kind, []).append(part.numpy())
    return {kind: np.concatenate(parts) for kind, parts in vectors.items()}


def retrieval(more: LoadedMore, pairs: Pairs) -> dict[str, list[Recall]]:
    """Recall of each kind by each other, "ecg -> report" and so on, among all pairs that have both.

    What matches: the same record; between ECG or picture and report, the same words too; between ECG and picture, the
    same picture.
    """
    vectors = embed_pairs(more, pairs)
    records, reports, images = (np.array(column) for column in zip(*pairs.rows, strict=True))
    found = {}
    for query, item in permutations(vectors, 2):
        shared = reports if "report" in (query, item) else images
        rows = np.flatnonzero(images != "") if "image" in (query, item) else np.arange(len(pairs))
        if len(rows):
            matches = (records[rows, None] == records[rows]) | (shared[rows, None] == shared[rows])
            found[f"{query} -> {item}"] = recall(vectors[query][rows] @ vectors[item][rows].T, matches)
    return found


class Relevance(NamedTuple):
    """How much each part of a record, of a text and of a picture speaks for what they have in common.

    Attributes:
        cosine: of the ECG with the text.
        ecg: (196,) of tokens, 1 for the one that speaks most; token i is of 25 samples at 100 Hz from 5 i on.
        words: of the text, in its order, each with a weight of 0 to 1.
        image: (14, 14), None without a picture.
        image_cosine: of picture and text.
    """

    cosine: float
    ecg: NDArray[np.float32]
    words: tuple[tuple[str, float], ...]
    image: NDArray[np.float32] | None = None
    image_cosine: float | None = None


def explain_pair(more: LoadedMore, record: EcgRecord, text: str, image: str = "") -> Relevance:
    """See `Relevance`; image: path, "" without one."""
    network = more.network
    signal = inputs(ten_seconds(record)[None])
    tokens, mask = _tokens(more.tokenizer, [text])
    attention: list[Tensor] = []

    def keep(module: nn.Module, _: Any, weights: Tensor) -> None:
        weights.retain_grad()
        attention.append(weights)

    hooks = [module.register_forward_hook(keep) for module in network.modules() if isinstance(module, DropKey)]
    try:
        with torch.enable_grad():
            states = network.text.model(tokens, mask, output_attentions=True)
            for weights in states.attentions:
                weights.retain_grad()
            note = network.text.projection(states.last_hidden_state[:, 0])
            cosine = (network.ecg(signal.requires_grad_()) * note).sum()
            cosine.backward()
            of_ecg = relevance(attention)
            of_text = relevance(states.attentions)
            of_image, image_cosine = None, None
            if image and network.image is not None:
                attention.clear()
                similarity = (network.image(_images([image]).requires_grad_()) * note.detach()).sum()
                similarity.backward()
                found = relevance(attention)
                side = round(len(found) ** 0.5)
                of_image, image_cosine = found.view(side, side).numpy(), float(similarity.detach())
    finally:
        for hook in hooks:
            hook.remove()
        network.zero_grad(set_to_none=True)
    words = _words(more.tokenizer, text, of_text.tolist())
    return Relevance(float(cosine.detach()), of_ecg.numpy(), words, of_image, image_cosine)


def _words(tokenizer: Any, text: str, weights: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """Words of a text, each with the highest weight of its tokens; weights: of all tokens but the first."""
    offsets = tokenizer(text, truncation=True, max_length=_LONGEST, return_offsets_mapping=True)["offset_mapping"][1:]
    words, place = [], 0
    for word in text.split():
        start = text.index(word, place)
        place = start + len(word)
        of_word = [
            weight for (first, last), weight in zip(offsets, weights, strict=True) if first < place and last > start
        ]
        words.append((word, max(of_word, default=0.0)))
    return tuple(words)


def _network(name: str, text: str, vocabulary: int, has_images: bool) -> More:
    size = SIZES[name]
    return More(size, _text_encoder(text, size, vocabulary), has_images)


def _text_encoder(text: str, size: MoreSize, vocabulary: int) -> TextEncoder:
    if not text:
        config = RobertaConfig(
            vocab_size=vocabulary, hidden_size=size.width, num_hidden_layers=size.depth, num_attention_heads=size.heads,
            intermediate_size=4 * size.width, max_position_embeddings=_LONGEST + 2, attn_implementation="eager",
            type_vocab_size=1,
        )  # fmt: skip
        return TextEncoder(RobertaModel(config, add_pooling_layer=False), size.width)
    disable_progress_bar()
    try:
        model = AutoModel.from_pretrained(text, attn_implementation="eager", trust_remote_code=False)
        adapted: PeftModel = get_peft_model(model, _LORA)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"text tower {text}: not a RoBERTa ({str(error).splitlines()[0]}); name its hub id") from error
    return TextEncoder(adapted, model.config.hidden_size)


def _tokenizer(text: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(text, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"text tower {text}: no tokenizer ({str(error).splitlines()[0]}); name its hub id") from error


def own_tokenizer(reports: Sequence[str]) -> Any:
    """Byte pairs of the reports and of the statements' names, in small letters."""
    tokenizer = _of_words().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=_SPECIAL, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    names = [name for statement in STATEMENTS.values() for name in (statement.name, statement.german)]
    tokenizer.train_from_iterator([*reports, *names], trainer)
    words = json.loads(tokenizer.to_str())["model"]
    return _of_words(words["vocab"], words["merges"])


def _of_words(vocabulary: Mapping[str, int] = MappingProxyType({}), merges: Sequence[Sequence[str]] = ()) -> Any:
    """The small tower's tokenizer. Raises ValueError for words that are none: tokenizers ends with a panic on some.

    They are numbered from 0 to n - 1, the special tokens first, and a merge joins two words to a third.
    """
    if vocabulary and sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError("the words are not numbered")
    if vocabulary and [vocabulary.get(token) for token in _SPECIAL] != list(range(len(_SPECIAL))):
        raise ValueError("a special token is missing")
    if not all({left, right, left + right} <= vocabulary.keys() for left, right in merges):
        raise ValueError("a merge is of words that are missing")
    tokenizer = Tokenizer(models.BPE(dict(vocabulary), [(left, right) for left, right in merges]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def _tokens(tokenizer: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Tokens and mask, (B, T)."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def _images(paths: Sequence[str]) -> Tensor:
    """(B, 1, 224, 224) of mean 0 and deviation 1, padded to squares. Raises `InputError` naming a file."""
    grey = np.stack([np.asarray(read_xray(path), dtype=np.float32) for path in paths])[:, None] / _GREY_LEVELS
    deviation = grey.std(axis=(2, 3), keepdims=True)
    return torch.from_numpy((grey - grey.mean(axis=(2, 3), keepdims=True)) / np.maximum(deviation, 1e-3))


def read_xray(path: str) -> Image.Image:
    """A picture in grey, padded to a square of 224 pixels. Raises `InputError` naming the file."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            file.draft("L", (2 * IMAGE_SIZE, 2 * IMAGE_SIZE))
            return ImageOps.pad(file.convert("L"), (IMAGE_SIZE, IMAGE_SIZE))
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a PNG or JPEG ({error}); mend the table of pairs") from error
