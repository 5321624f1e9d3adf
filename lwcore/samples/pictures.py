"""One picture: from a stranger's bytes to the model's size, the way `InputSpec` describes it."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from lwcore.errors import SampleError
from lwcore.model import InputSpec
from lwcore.settings import SETTINGS

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
ASPECT = 40  # resizing the short side of anything narrower would make a picture of gigabytes

Image.MAX_IMAGE_PIXELS = min(Image.MAX_IMAGE_PIXELS or SETTINGS.image_edge**2, SETTINGS.image_edge**2)


def read_picture(data: bytes, spec: InputSpec) -> np.ndarray:
    """Decode one picture (of an animation the first frame), upright, at the model's size.

    Returns:
        uint8, shape (H, W, C).

    Raises:
        SampleError: not a picture of a known format, too large, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image)
                image.load()
                return fit(ImageOps.exif_transpose(image), spec)
    except SampleError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise SampleError(f"expected at most {SETTINGS.image_edge} pixels an edge, found more") from None
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise SampleError(f"expected a JPEG, PNG, WebP, BMP or GIF, found something else ({_short(error)})") from None


def _short(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "unknown format" if "cannot identify" in text else text[:80]


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > SETTINGS.image_edge:
        raise SampleError(f"expected at most {SETTINGS.image_edge} pixels an edge, found {width} × {height}")
    if max(width, height) > ASPECT * min(width, height):
        raise SampleError(f"expected a picture at most {ASPECT} times as long as wide, found {width} × {height}")


def fit(image: Image.Image, spec: InputSpec) -> np.ndarray:
    """Colour, size and crop as the model wants them: uint8, shape (H, W, C)."""
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey instead of scaling it
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGB" if spec.color == "rgb" else "L")
    height, width = spec.size
    how = Image.Resampling.BICUBIC if spec.interpolation == "bicubic" else Image.Resampling.BILINEAR
    if spec.resize is None:
        image = image if image.size == (width, height) else image.resize((width, height), how)
    else:
        image = _cropped(image, spec.resize, (width, height), how)
    return np.asarray(image, np.uint8).reshape(height, width, spec.channels)


def _cropped(image: Image.Image, shorter: int, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Shorter side to `shorter`, longer side in proportion (rounded down), centre crop, as torchvision does it."""
    scale = shorter / min(image.size)
    wanted = (max(shorter, int(image.width * scale + 1e-6)), max(shorter, int(image.height * scale + 1e-6)))
    resized = image if image.size == wanted else image.resize(wanted, how)
    left, top = round((resized.width - size[0]) / 2), round((resized.height - size[1]) / 2)
    return resized.crop((left, top, left + size[0], top + size[1]))


def fit_all(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Stored pictures, shape (N, H, W, C), brought to a model's colour and size; unchanged where they fit already."""
    if pixels.shape[1:] == (*spec.size, spec.channels):
        return pixels
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return np.stack([fit(Image.fromarray(picture), spec) for picture in squeezed])
