"""Images as one array: of a folder, an `.npz`, an IDX file such as MNIST's, or the values of records.

What a folder or a topic holds is judged one by one: what cannot be used is skipped, and named with the
reason. Only when nothing is left, or what is left does not fit together, it is an error.

    not an image, cut short, corrupt    skipped
    more than `LIMIT` pixels            skipped, from its header: it is never decoded (a decompression bomb)
    16 bits a value                     the upper 8 of them
    floating-point values               skipped: which of them is white is not known
    animated                            its first picture
    CMYK, palette, grey among colours   converted
    transparent                         laid on white
    turned by its EXIF data             turned back
    several sizes                       brought to `size`; without one, an error

N images of H × W pixels, C colours (1 or 3).
"""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from streamgen.errors import InputError, MissingDependency

if TYPE_CHECKING:
    from PIL import Image

Images = NDArray[np.uint8]  # [N, H, W, C]

SMALLEST, LARGEST = 16, 128  # pixels of a side
LIMIT = 40_000_000  # pixels of a file that is decoded: 120 MB in colour
# Pillow knows 40 more, of which some are rare, slow, or call other programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_IDX_BYTES = 0x08  # type code of unsigned bytes


class Look(BaseModel):
    """How images are brought to one form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int | None = Field(
        None, ge=SMALLEST, le=LARGEST, description="Pixels of a side; without it, the images' own size."
    )
    colours: Literal["auto", "grey", "colour"] = Field(
        "auto", description="auto: grey if every image is, else colour."
    )


@dataclass(frozen=True, slots=True)
class Source:
    """The images, and what was not used: the file or record, and the reason."""

    images_NHWC: Images
    skipped: dict[str, str] = field(default_factory=dict)


def read_images(
    path: Path, look: Look, array: str | None = None, report: Callable[[float], None] | None = None
) -> Source:
    """Read the images at `path`; `array` names the one of an `.npz` that has several.

    Raises `InputError` when there is none that can be used, or they do not fit together, and
    `MissingDependency` without Pillow.
    """
    if not path.exists():
        raise InputError(f"There is nothing at {path}: give a folder of images, an .npz or an IDX file.")
    skipped: dict[str, str] = {}
    try:
        if path.is_dir():
            images = _folder(path, look, skipped, report)
        else:
            stored_NHWC = _npz(path, array) if path.suffix == ".npz" else _idx(path)
            images = [_brought(image_HWC, look) for image_HWC in _coloured(stored_NHWC, path)]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return together(images, skipped, look, str(path))


def _folder(
    path: Path, look: Look, skipped: dict[str, str], report: Callable[[float], None] | None
) -> list[Images]:
    """Pixels [H, W, C] of each file that can be used, in the order of their names."""
    pillow = _pillow()
    files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    images = []
    for number, file in enumerate(files):
        if report is not None:
            report(number / len(files))
        try:
            with file.open("rb") as opened:
                images.append(_decoded(pillow, opened, look))
        except _DAMAGED as error:
            skipped[file.relative_to(path).as_posix()] = _reason(error)
    return images


def from_bytes(data: bytes | None, look: Look) -> Images:
    """The image [H, W, C] that is in the bytes of a file.

    Raises `ValueError` with the reason when it cannot be used, and `MissingDependency` without Pillow.
    """
    pillow = _pillow()
    if not data:
        raise ValueError("no value")
    try:
        return _decoded(pillow, io.BytesIO(data), look)
    except _DAMAGED as error:
        raise ValueError(_reason(error)) from error


def together(images: list[Images], skipped: dict[str, str], look: Look, where: str) -> Source:
    """One array of images that fit together. Raises `InputError` when they do not, or there is none."""
    if not images:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise InputError(f"{where} holds no image that can be used ({reasons or 'it is empty'}).")
    return Source(_together(images, look, where), skipped)


# What Pillow's decoders raise for files that are no image, cut short, or made to hurt.
_DAMAGED = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, OverflowError),
    *(struct.error, zlib.error),
)


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image of a known format"
    return str(error) or type(error).__name__


def _decoded(pillow: Any, file: BinaryIO, look: Look) -> Images:
    """One file as [H, W, C]. Raises one of `_DAMAGED`."""
    with warnings.catch_warnings():
        # Odd EXIF data is no defect, and sizes we judge ourselves.
        warnings.simplefilter("ignore")
        try:
            opened = pillow.open(file, formats=FORMATS)
        except pillow.DecompressionBombError as error:
            raise ValueError(f"far more than the {LIMIT:,} pixels that are decoded") from error
        with opened:
            width, height = opened.size
            if width * height > LIMIT:
                raise ValueError(f"{width} × {height} pixels, and at most {LIMIT:,} are decoded")
            if look.size is None and (min(width, height) < SMALLEST or max(width, height) > LARGEST):
                raise ValueError(
                    f"{width} × {height} pixels, and without a size only {SMALLEST} to {LARGEST} a side fit"
                )
            return _brought(np.asarray(_plain(pillow, opened)), look)


def _plain(pillow: Any, opened: Image.Image) -> Image.Image:
    """Eight bits of grey or of three colours, upright, on white. `ValueError`: white is not known."""
    from PIL import ImageOps

    if opened.mode == "F":
        raise ValueError(
            "its values are floating-point, and which is white is not known: save it with 8 or 16 bits"
        )
    upright: Image.Image = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would cut off at 255
        deep = np.asarray(upright).astype(np.int64).clip(0, 65535)
        return pillow.fromarray((deep >> 8).astype(np.uint8))  # type: ignore[no-any-return]
    kind = "L" if upright.mode in ("1", "L", "LA") else "RGB"
    if upright.has_transparency_data:
        drawn = upright.convert("RGBA")
        white = pillow.new("RGBA", drawn.size, "white")
        upright = pillow.alpha_composite(white, drawn).convert(kind)
    return upright.convert(kind)


def _npz(path: Path, array: str | None) -> NDArray[Any]:
    """The one array that can be images, or the one that is named."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            if array is not None:
                if array not in file.files:
                    raise InputError(f"{path} has no array {array!r}; it has {', '.join(file.files)}.")
                return np.asarray(file[array])
            # Labels and the like have fewer dimensions.
            found = {name: file[name] for name in file.files if file[name].ndim in (3, 4)}
    except (ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged, or no .npz file of numbers: {error}.") from error
    if len(found) != 1:
        named = f"several ({', '.join(found)}): name one (--array)" if found else "none"
        raise InputError(f"{path} should hold one array [N, H, W] or [N, H, W, C], and has {named}.")
    return next(iter(found.values()))


def _idx(path: Path) -> NDArray[np.uint8]:
    """IDX, the format of MNIST (LeCun, Cortes & Burges 1998), plain or gzipped: [N, H, W] or more."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error) as error:
            raise InputError(f"{path} is damaged: {error}.") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise InputError(f"{path} is neither a folder, nor an .npz, nor an IDX file of images.")
    kind, dimensions = data[2], data[3]
    if kind != _IDX_BYTES or dimensions not in (3, 4):
        raise InputError(f"{path} is an IDX file, but not of images in bytes (labels, perhaps?).")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise InputError(f"{path} is cut short: its header is not whole.")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    wanted = int(np.prod([int(one) for one in shape], dtype=object))
    if len(data) - start != wanted:
        raise InputError(
            f"{path} is damaged: it should have {wanted:,} bytes, and has {len(data) - start:,}."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _coloured(stored: NDArray[Any], path: Path) -> Images:
    """An array of a file as [N, H, W, C]."""
    if stored.dtype != np.uint8:
        raise InputError(
            f"The images in {path} are {stored.dtype}, not uint8: store them as whole numbers from 0 to 255."
        )
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4 or stored.shape[-1] not in (1, 3):
        raise InputError(
            f"The images in {path} are {list(stored.shape)}, not [N, H, W] or [N, H, W, 1 or 3]."
        )
    return stored


def _brought(image: Images, look: Look) -> Images:
    """One image [H, W] or [H, W, C] at the size asked for: the largest square of its middle, then scaled."""
    image_HWC = image[..., None] if image.ndim == 2 else image
    height, width, colours = image_HWC.shape
    if look.size is None or (height, width) == (look.size, look.size):
        return image_HWC
    pillow = _pillow()
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square_HWC = image_HWC[top : top + side, left : left + side]
    drawn = pillow.fromarray(square_HWC[..., 0] if colours == 1 else square_HWC)
    scaled = np.asarray(drawn.resize((look.size, look.size), pillow.Resampling.LANCZOS))
    return scaled.reshape(look.size, look.size, colours)


def _together(images: list[Images], look: Look, where: str) -> Images:
    """One array of all, if they fit together."""
    sizes = sorted({image_HWC.shape[:2] for image_HWC in images})
    if len(sizes) > 1:
        named = ", ".join(f"{width} × {height}" for height, width in sizes[:3])
        raise InputError(f"The images in {where} have {len(sizes)} sizes ({named}): say which with --size.")
    height, width = sizes[0]
    if min(height, width) < SMALLEST or max(height, width) > LARGEST:
        raise InputError(
            f"The images in {where} have {width} × {height} pixels; models learn sides of {SMALLEST} to "
            f"{LARGEST}: say which with --size."
        )
    grey = look.colours == "grey" or (
        look.colours == "auto" and all(image_HWC.shape[2] == 1 for image_HWC in images)
    )
    return np.stack([_toned(image_HWC, grey) for image_HWC in images])


def _toned(image_HWC: Images, grey: bool) -> Images:
    if grey and image_HWC.shape[2] == 3:
        # Luma of ITU-R BT.601, as Pillow's.
        grey_HW: Images = np.rint(image_HWC @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        return grey_HW[..., None]
    return image_HWC if grey else np.broadcast_to(image_HWC, (*image_HWC.shape[:2], 3))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency(
            "Reading and resizing images needs Pillow: pip install 'streamgen-kafka[images]'."
        ) from error
    return Image
