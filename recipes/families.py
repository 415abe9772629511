"""The two families of models: where the image is, and what else differs between them.

Either way an image is encoded once and every dialogue about it sees it, while no dialogue sees another. An Mllama has
the image beside the row: its cross-attention layers read the vision tower's output. A Qwen3-VL has it in the row, as
image tokens: they are the trunk of a tree whose branches are the dialogues. A branch sees the trunk and itself, and
its positions go on from the trunk's end, so that it is computed as if it stood alone behind the image.

`recipes.packing` and `recipes.inference` are written once, on a trunk that an Mllama's rows do not have.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

Shape = tuple[int, ...]
"""The size of an image as its family counts it: (tiles,) of an Mllama, (height, width) in tokens of a Qwen3-VL."""


@dataclass(frozen=True)
class Trunk:
    """The tokens at the head of a row that all its dialogues see. positions: (axes, tokens)."""

    input_ids: tuple[int, ...]
    positions: Tensor

    @property
    def end(self) -> int:
        """The position of the first token behind it."""
        return int(self.positions.max()) + 1 if self.input_ids else 0


NO_TRUNK = Trunk((), torch.zeros(1, 0, dtype=torch.long))


class Family(ABC):
    """What the code that loads, packs, asks and counts has to know about a kind of model."""

    title: str
    """For messages."""
    model_class: str
    """Its name in transformers."""
    tower: str
    """Path of the vision tower in the model."""
    axes: int
    """Numbers of a position: 1, or 3 (time, height, width)."""
    shapes: Mapping[str, Mapping[str, Any]]
    """Published sizes: name -> arguments of the configuration's class."""
    hub_name: re.Pattern[str]
    """Hub ids whose shape is known; the first group is a name of `shapes`."""

    @abstractmethod
    def config(self, size: str) -> Any:
        """The configuration of one of `shapes`."""

    @abstractmethod
    def open_processor(self, where: Any, **arguments: Any) -> Any:
        """`from_pretrained` of its processor."""

    @abstractmethod
    def random_processor(self, config: Any, nano: Any) -> Any:
        """Nano's tokenizer, with an image processor for a model of that configuration. nano: nano's processor."""

    @abstractmethod
    def preprocess(self, processor: Any, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[Shape]]:
        """Pixel tensors of one image a row, and the size of each."""

    @abstractmethod
    def trunk(self, head: tuple[int, ...], shape: Shape) -> Trunk:
        """What dialogues about an image of that size share in their row. head: the chat up to the image token."""

    @abstractmethod
    def image_masks(self, sees_image: Tensor, shapes: Sequence[Shape | None], processor: Any) -> dict[str, Tensor]:
        """Masks besides self-attention's. sees_image: (rows, T) int64, 1 from each dialogue's image token on; shapes:
        of the rows' images, None for a row without one."""

    @abstractmethod
    def most_patches(self, config: Any) -> int:
        """Patches of the largest image in the vision tower."""

    @abstractmethod
    def meta_batch(self, config: Any, images: int, text_tokens: int, *, with_images: bool) -> dict[str, Tensor]:
        """A batch of the shapes that packing makes, of the largest images, on the meta device.

        with_images: whether with the images, or with what is asked behind them alone.
        """

    def encoders(self, vision: Any) -> list[tuple[Any, set[int]]]:
        """Stacks of layers in a vision tower that transformers keeps and checkpoints badly, and the layers of each
        whose output is read."""
        return []


class Mllama(Family):
    """Llama 3.2 Vision, and nano: the image is read by cross-attention layers."""

    title = "Llama 3.2 Vision (mllama)"
    model_class = "MllamaForConditionalGeneration"
    tower = "model.vision_model"
    axes = 1
    # As published (Hugging Face model cards; Llama 3.2 Vision collection, Meta 2024): 560-pixel tiles, and
    # transformers' defaults for the rest of the 11 B. Counted on these shapes: 10.67 B and 88.6 B parameters.
    shapes = {  # noqa: RUF012
        "11b": {},
        "90b": {
            "hidden_size": 8192,
            "intermediate_size": 28_672,
            "num_attention_heads": 64,
            "num_hidden_layers": 100,
            "cross_attention_layers": list(range(3, 100, 5)),
        },
    }
    hub_name = re.compile(r"(?:.*/)?llama-3\.2-(11b|90b)-vision(?:-instruct)?", re.IGNORECASE)

    def config(self, size: str) -> Any:
        from transformers import MllamaConfig

        return MllamaConfig(vision_config={"image_size": 560}, text_config=dict(self.shapes[size]), dtype="bfloat16")

    def open_processor(self, where: Any, **arguments: Any) -> Any:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(where, **arguments)

    def random_processor(self, config: Any, nano: Any) -> Any:
        images, vision = nano.image_processor, config.vision_config
        images.size = type(images.size)(height=vision.image_size, width=vision.image_size)
        images.max_image_tiles = vision.max_num_tiles
        return nano

    def preprocess(self, processor: Any, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[Shape]]:
        """pixel_values: (rows, 1, tiles, 3, side, side)."""
        features = processor.image_processor([[image.convert("RGB")] for image in images], return_tensors="pt")
        shapes: list[Shape] = [(int(row[0]),) for row in features.pop("num_tiles")]
        return {name: features[name] for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}, shapes

    def trunk(self, head: tuple[int, ...], shape: Shape) -> Trunk:
        """Nothing: the image is beside the row."""
        return NO_TRUNK

    def image_masks(self, sees_image: Tensor, shapes: Sequence[Shape | None], processor: Any) -> dict[str, Tensor]:
        """cross_attention_mask: (rows, T, 1, max_tiles) int64: who sees the image sees the tiles that it fills."""
        tiles = torch.arange(processor.image_processor.max_image_tiles)
        has_tile = (tiles < torch.tensor([shape[0] if shape else 0 for shape in shapes])[:, None]).long()
        return {"cross_attention_mask": (sees_image[:, :, None] * has_tile[:, None, :])[:, :, None]}

    def most_patches(self, config: Any) -> int:
        """Those of all tiles, with the class tokens."""
        vision = config.vision_config
        patches: int = vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1)
        return patches

    def meta_batch(self, config: Any, images: int, text_tokens: int, *, with_images: bool) -> dict[str, Tensor]:
        vision, size = config.vision_config, config.vision_config.image_size
        ids = torch.zeros((images, text_tokens), dtype=torch.long, device="meta")
        tiles = torch.ones((images, 1, vision.max_num_tiles), dtype=torch.long, device="meta")
        batch = {
            "input_ids": ids,
            "position_ids": ids,
            "attention_mask": torch.ones((images, 1, text_tokens, text_tokens), dtype=torch.bool, device="meta"),
            "cross_attention_mask": tiles[:, None].expand(-1, text_tokens, -1, -1),
        }
        if with_images:
            batch |= {
                "aspect_ratio_mask": tiles,
                "aspect_ratio_ids": torch.ones((images, 1), dtype=torch.long, device="meta"),
                "pixel_values": torch.empty((images, 1, vision.max_num_tiles, 3, size, size), device="meta"),
            }
        return batch

    def encoders(self, vision: Any) -> list[tuple[Any, set[int]]]:
        return [(vision.transformer, set(vision.intermediate_layers_indices)), (vision.global_transformer, set())]


PAGE_PIXELS = 4 * 560 * 560
"""Pixels to which a page is shrunk for a Qwen3-VL: as many as the 11 B's four tiles have, 1,225 tokens. As published it
takes 16.8 million, and a scan would need ten times the memory of a page."""


class Qwen3VL(Family):
    """Qwen3-VL (Bai et al. 2025, arXiv 2511.21631): the image is a run of tokens, 32 pixels square each, with positions
    in time, height and width (M-RoPE)."""

    title = "Qwen3-VL (qwen3_vl)"
    model_class = "Qwen3VLForConditionalGeneration"
    tower = "model.visual"
    axes = 3
    # text_config and vision_config as in config.json of https://huggingface.co/Qwen/Qwen3-VL-{2B,4B,8B}-Instruct, all
    # three under Apache-2.0. Counted on these shapes: 2,127,532,032, 4,437,815,808 and 8,767,123,696 parameters.
    _VISION = {  # noqa: RUF012
        "small": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]},
        "large": {
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        "tiny": {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
    }
    shapes = {  # noqa: RUF012
        "qwen3-vl-2b": {
            "vision": "small",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
        },
        "qwen3-vl-4b": {
            "vision": "small",
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "tie_word_embeddings": True,
        },
        "qwen3-vl-8b": {
            "vision": "large",
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "tie_word_embeddings": False,
        },
        "qwen3-vl-tiny": {  # for tests: of no published model, with every part of one
            "vision": "tiny",
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "mrope_section": [4, 2, 2],
            "vocab_size": 2056,
            "tie_word_embeddings": True,
        },
    }
    hub_name = re.compile(r"(?:.*/)?(qwen3-vl-[248]b)-instruct", re.IGNORECASE)

    def config(self, size: str) -> Any:
        from transformers import Qwen3VLConfig

        text: dict[str, Any] = {"num_key_value_heads": 8, "max_position_embeddings": 262_144, **self.shapes[size]}
        vision: dict[str, Any] = self._VISION[text.pop("vision")]
        rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True}
        text["rope_parameters"] = rope | {"mrope_section": text.pop("mrope_section", [24, 20, 20])}
        return Qwen3VLConfig(
            text_config=text,
            vision_config={**vision, "out_hidden_size": text["hidden_size"]},
            tie_word_embeddings=text["tie_word_embeddings"],
            dtype="bfloat16",
        )

    def open_processor(self, where: Any, **arguments: Any) -> Any:
        from recipes.qwen_processor import Qwen3VLProcessor

        return Qwen3VLProcessor.from_pretrained(where, **arguments)

    def random_processor(self, config: Any, nano: Any) -> Any:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        from recipes.qwen_processor import Qwen3VLProcessor

        images = Qwen2VLImageProcessorPil(
            patch_size=config.vision_config.patch_size,
            size={"shortest_edge": 65_536, "longest_edge": PAGE_PIXELS},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        return Qwen3VLProcessor(images, nano.tokenizer, nano.chat_template)

    def preprocess(self, processor: Any, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[Shape]]:
        """pixel_values: (patches of all rows, 3 x 2 x side x side), each patch twice, as a still film."""
        features = processor.image_processor([image.convert("RGB") for image in images], return_tensors="pt")
        merge = processor.image_processor.merge_size
        shapes: list[Shape] = [(int(h) // merge, int(w) // merge) for _, h, w in features["image_grid_thw"]]
        return {name: features[name] for name in ("pixel_values", "image_grid_thw")}, shapes

    def trunk(self, head: tuple[int, ...], shape: Shape) -> Trunk:
        """The chat's head, its one image token repeated for each part of the image.

        Positions as `Qwen3VLModel.get_rope_index` gives them: those of the image count its rows and columns from where
        the text before it ends, and text goes on behind the largest.
        """
        height, width = shape
        start = len(head) - 1
        text = torch.arange(start).expand(3, -1)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        image = start + torch.stack([torch.zeros_like(rows), rows, columns]).flatten(1)
        return Trunk((*head[:-1], *head[-1:] * (height * width)), torch.cat([text, image], dim=1))

    def image_masks(self, sees_image: Tensor, shapes: Sequence[Shape | None], processor: Any) -> dict[str, Tensor]:
        """None: the image is in the row."""
        return {}

    def most_patches(self, config: Any) -> int:
        return PAGE_PIXELS // int(config.vision_config.patch_size) ** 2

    def meta_batch(self, config: Any, images: int, text_tokens: int, *, with_images: bool) -> dict[str, Tensor]:
        """The sizes of images are numbers on the CPU: the model reads them, and slices by them."""
        vision, patches = config.vision_config, self.most_patches(config)
        merge = vision.spatial_merge_size
        length = text_tokens + (patches // merge**2 if with_images else 0)
        batch = {
            "input_ids": torch.zeros((images, length), dtype=torch.long, device="meta"),
            "position_ids": torch.zeros((3, images, length), dtype=torch.long, device="meta"),
            "attention_mask": torch.ones((images, 1, length, length), dtype=torch.bool, device="meta"),
        }
        if with_images:
            values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            grid = torch.tensor([[1, merge, patches // merge]] * images)
            batch |= {
                "pixel_values": torch.empty((images * patches, values), device="meta"),
                "image_grid_thw": grid,
                "image_interp_indices": torch.zeros((images * patches, 4), dtype=torch.long, device="meta"),
                "image_interp_weights": torch.zeros((images * patches, 4), device="meta"),
                "image_position_ids": torch.zeros((images * patches, 2), dtype=torch.long, device="meta"),
            }
        return batch


_MLLAMA, _QWEN3_VL = Mllama(), Qwen3VL()

FAMILIES: dict[str, Family] = {"mllama": _MLLAMA, "qwen3_vl": _QWEN3_VL}
"""By the model_type of their configuration."""

_PROCESSORS: dict[str, Family] = {"MllamaProcessor": _MLLAMA, "Qwen3VLProcessor": _QWEN3_VL}


def family_of(owner: Any) -> Family:
    """The family of a configuration, or of a processor."""
    kind = getattr(owner, "model_type", None)
    return FAMILIES[kind] if kind else _PROCESSORS[type(owner).__name__]
