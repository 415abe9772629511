"""The processor of a Qwen3-VL without torchvision, which transformers needs for its part that reads videos."""

from __future__ import annotations

from typing import Any

from transformers.models.qwen3_vl import processing_qwen3_vl
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from recipes.families import PAGE_PIXELS


class Qwen3VLProcessor(processing_qwen3_vl.Qwen3VLProcessor):  # type: ignore[misc]
    """The published tokenizer and image processor. It has the name of the published class, which is written into the
    files that it saves: with torchvision they open with stock transformers, the part for videos at its defaults. Pages
    are shrunk to `PAGE_PIXELS`, in those files too."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        size = image_processor.size
        longest = min(size["longest_edge"], PAGE_PIXELS)
        image_processor.size = type(size)(shortest_edge=size["shortest_edge"], longest_edge=longest)
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    def to_dict(self) -> dict[str, Any]:
        """As published, with the part for videos."""
        settings: dict[str, Any] = super().to_dict()
        return settings | {"video_processor": Qwen3VLVideoProcessor().to_dict()}
