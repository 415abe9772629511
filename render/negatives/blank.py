"""Whether a picture shows nothing at all: decided by contrast, before any model is asked."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Standard deviation in 256 grey levels: paper's grain and shade stay below 9, pages of any style above 30.
_LINE_CONTRAST = 12.0


def is_blank(image: Image.Image) -> bool:
    """Whether nothing is drawn on an image: none of 16 x 16 regions has the contrast of a thin line."""
    grey = np.asarray(image.convert("L"))
    regions = (region for band in np.array_split(grey, 16) for region in np.array_split(band, 16, axis=1))
    return all(region.std() < _LINE_CONTRAST for region in regions if region.size)
