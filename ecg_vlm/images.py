"""From a file to an image. Free of torch, so that a file that cannot be read is refused at once."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from render.errors import InputError

# 64 megapixels: an A3 page at 600 dpi is 70 Mpx, a phone photo 12-50. A larger "image" is a decompression bomb.
_MOST_PIXELS = 64_000_000


def open_image(path: str | Path) -> Image.Image:
    """Read an image as RGB. Raises `InputError` for a file that is none, is damaged, or is a decompression bomb."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image file")
    too_large = f"{path}: more than {_MOST_PIXELS // 1_000_000} megapixels; scale the image down first"
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise InputError(too_large)
            return image.convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(too_large) from error
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to: OSError, struct.error, ...
        raise InputError(f"{path}: not an image that can be read ({error}); PNG and JPEG work") from error
