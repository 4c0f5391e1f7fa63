"""The one door through which encoded pictures become pixels: of corpora, of evaluations, and in reports.

Files from elsewhere are damaged in every way there is, some are made to harm, and all of that ends in ``BadPicture``.
"""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, features

Image.init()
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", *(form for form in ("WEBP", "AVIF") if features.check(form.lower())))
"""What is decoded, whatever a file is called: raster formats, which hold no scripts and need no further program. Pillow
reads WebP and AVIF where it was built with their libraries, as its wheels are."""

SUFFIXES = tuple(suffix for suffix, form in Image.registered_extensions().items() if form in FORMATS)
"""How names of such files end, in lower case."""

MAX_PIXELS = 89_478_485
"""Above this a picture is taken for a decompression bomb; Pillow warns from here on (a quarter of a GiB of RGB)."""

MAX_BYTES = 1 << 28
"""Above this an encoded picture is not even read."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held; 5 to 8 swap width and height."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # ``_open`` refuses what this warns of


class BadPicture(OSError):
    """A picture that cannot be used. The message says why, in one line.

    Attributes:
        kind: name of the decoder's error, where the data is damaged or of no format that is read; else None.
    """

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind


class AnotherPicture(BadPicture):
    """A file that is not the one whose hash was recorded."""


def decode(data: bytes) -> Image.Image:
    """Decode a picture to RGB, turned as its EXIF says; transparent parts lie on white. Raises BadPicture.

    CMYK and grey become RGB. Pixels of 16 or 32 bits that Pillow cannot bring to 8 are refused.
    """
    picture = _open(data)
    try:
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        return picture.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(error) from error


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels as ``decode`` will have them, from the header alone. Raises BadPicture."""
    picture = _open(data)
    try:
        # A TIFF's size is turned already.
        turned = picture.format != "TIFF" and picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:
        raise _damaged(error) from error
    return picture.size[::-1] if turned else picture.size


def limited(length: int) -> None:
    """Raise BadPicture if an encoded picture has too many bytes to be one."""
    if length > MAX_BYTES:
        raise BadPicture(f"its picture takes {length} bytes, more than the {MAX_BYTES} allowed")


def load(path: Path) -> bytes:
    """The bytes of a picture's file, not decoded.

    Raises:
        FileNotFoundError: it is not there.
        BadPicture: it is no plain file, is too long, or may not be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            raise BadPicture("it is no file")
        limited(status.st_size)
        return path.read_bytes()
    except (BadPicture, FileNotFoundError):
        raise
    except OSError as error:
        raise BadPicture(error.strerror or type(error).__name__) from error


def read(path: Path, sha256: str | None = None) -> Image.Image:
    """Read and ``decode`` a file.

    Args:
        sha256: of the file as it was recorded; None where it was not.

    Raises:
        FileNotFoundError: it is not there.
        AnotherPicture: its hash is another one.
        BadPicture: it cannot be used. The message names the file.
    """
    with naming(path):
        data = load(path)
        picture = decode(data)  # first: of a damaged file it is to be said that it is damaged
        if sha256 is not None and digest(data) != sha256:
            raise AnotherPicture(f"the image {path.name} is another one than was recorded: its SHA-256 differs")
        return picture


LARGEST = 512
"""Most pixels along a side of a copy. Larger pictures are scaled down: a screen shows two of them. Ours."""

EXACT = 128
"""Copies up to this side are without loss, because they are shown enlarged, pixel for pixel. Ours."""

QUALITY = 85
"""WebP's quality of larger copies. Ours."""


COPY = ".webp"
"""Added to the name of a picture, that of its copy in an archive."""


def copy_of(path: Path) -> Path:
    """Where an archive holds the copy of a picture."""
    return path.with_name(path.name + COPY)


def is_kept(path: Path) -> bool:
    """Whether a picture or its copy is there, whatever they hold."""
    return path.is_file() or copy_of(path).is_file()


def read_kept(path: Path, sha256: str | None = None) -> Image.Image:
    """``read`` a picture of a run, or in an archive its copy. A copy has another hash than the record says."""
    try:
        return read(path, sha256)
    except FileNotFoundError:
        return read(copy_of(path))


def webp(picture: Image.Image, side: int, *, quickly: bool = False) -> bytes:
    """A picture, or a sheet of pictures of this side, as WebP: without loss where the side is at most ``EXACT``.

    Args:
        quickly: a lossless file that takes a seventh of the time and is an eighth larger.
    """
    file = io.BytesIO()
    if side <= EXACT:
        effort = {"quality": 0, "method": 0} if quickly else {"quality": 40, "method": 2}
        picture.save(file, format="WEBP", lossless=True, **effort)
    else:
        picture.save(file, format="WEBP", quality=QUALITY)
    return file.getvalue()


def scaled(picture: Image.Image) -> Image.Image:
    """A picture at most ``LARGEST`` pixels wide and high."""
    if max(picture.size) <= LARGEST:
        return picture
    small = picture.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return small


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context in which a BadPicture gets the name of the file in its message."""
    try:
        yield
    except AnotherPicture:
        raise
    except BadPicture as error:
        raise BadPicture(f"the image {path.name} cannot be read: {error}", error.kind) from error.__cause__ or error


def digest(data: bytes) -> str:
    """SHA-256 of a picture's file, in hexadecimal, as records keep it."""
    return hashlib.sha256(data).hexdigest()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadPicture("its picture is empty")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture(f"its picture would take more pixels than the {MAX_PIXELS} allowed") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged data
        raise _damaged(error) from error
    if width * height > MAX_PIXELS:
        raise BadPicture(f"its picture would take {width} x {height} pixels, more than the {MAX_PIXELS} allowed")
    if picture.mode.startswith(("I", "F")):
        # Pillow would clip these to 8 bits: nearly white pictures that nobody asked for.
        raise BadPicture(f"its pixels are of mode {picture.mode}, which has no 8-bit form; save it with 8 bits")
    return picture


def _damaged(error: Exception) -> BadPicture:
    kind = type(error).__name__
    return BadPicture(f"it is damaged, or in no format that is read ({kind})", kind)
