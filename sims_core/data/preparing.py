"""Pictures made ready to be stored, in whichever process: decoded, looked at, encoded as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sims_core.data.colours import OtherColours
from sims_core.data.grid import encode_png
from sims_core.data.pictures import BrokenImage, look_and_decode
from sims_core.data.sums import Sums, channel_sums
from sims_core.data.types import Images

ENOUGH_BYTES = 1 << 22
"""A process answers when it has so many bytes of stored pictures, however many it was given."""

Content = bytes | Images | BrokenImage
"""A picture as it was read; or why it could not be."""


@dataclass(frozen=True)
class Options:
    """What is done with every picture."""

    size: int | None = None
    channels: int | None = None
    convert_colours: bool = False
    alone: Path | None = None
    """What is locked while a large picture is decoded."""


@dataclass(frozen=True)
class Ready:
    """A picture that only has to be written, and what was seen of it; or why it cannot be."""

    shape: tuple[int, ...] = ()
    """Channels, height, width."""
    png: bytes = b""
    sums: Sums = ((), ())
    format: str | None = None
    side: int = 0
    """The shorter one of the encoded picture, in pixels."""
    remarks: tuple[str, ...] = ()
    error: BrokenImage | OtherColours | None = None


def prepare(options: Options, content: Content) -> Ready:
    """Decodes one picture and encodes it as it will be stored."""
    if isinstance(content, BrokenImage):
        return Ready(error=content)
    how = (options.size, options.channels, options.convert_colours, options.alone)
    try:
        seen = look_and_decode(content, *how)
    except (BrokenImage, OtherColours) as error:
        # Anew: the one that was raised holds, by its traceback, all that was read.
        return Ready(error=type(error)(*error.args))
    pixels, side = seen.pixels, min(seen.width, seen.height)
    png, sums = encode_png(pixels), channel_sums(pixels)
    return Ready(pixels.shape, png, sums, seen.format, side, seen.remarks)


def prepare_some(task: tuple[Options, Sequence[Content]]) -> list[Ready]:
    """The first of the pictures: as many as together stay small."""
    options, contents = task
    done: list[Ready] = []
    size = 0
    for content in contents:
        done.append(prepare(options, content))
        size += len(done[-1].png)
        if size >= ENOUGH_BYTES:
            break
    return done
