"""What a container states of itself: where it ends, and how large its picture is."""

from collections.abc import Mapping
from typing import Literal

_BOXES = b"ftyp"
_JPEG2000 = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
_BYTE_ORDER: Mapping[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_GIF = (b"GIF87a", b"GIF89a")
_END_OF_CODESTREAM, _START_OF_DATA = b"\xff\xd9", b"\xff\x93"


def ends_early(content: bytes) -> bool:
    r"""Whether a WebP, AVIF, HEIC, JPEG 2000 or TIFF file lacks its last bytes.

    Read from lengths, offsets and markers alone; False where there are none to go by.

    >>> ends_early(b"RIFF\x64\0\0\0WEBP"), ends_early(b"RIFF\x04\0\0\0WEBP")
    (True, False)
    """
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if content.startswith(_JPEG2000):
        return _lacks_end_of_codestream(content)
    if content[4:8] == _BOXES:
        return len(content) < _end_of_boxes(content)
    if content[:4] in _BYTE_ORDER:
        return len(content) < _end_of_directory(content, _BYTE_ORDER[content[:4]])
    return False


def _end_of_boxes(content: bytes) -> int:
    """Where the last outermost box ends (ISO 14496-12, 4.2); 0 where something is no box."""
    position = 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size == 0:  # this box goes on to the end of the file
            return len(content)
        if not content[position + 4 : position + 8].decode("latin-1").isprintable():
            return 0  # no type of a box: this is damage, not a length
        if size == 1:
            size = int.from_bytes(content[position + 8 : position + 16], "big")
        position += max(size, 8)
    return position


def _end_of_directory(content: bytes, order: Literal["little", "big"]) -> int:
    """Where the first directory of a TIFF ends (TIFF 6.0, section 2)."""
    start = int.from_bytes(content[4:8], order)
    entries = int.from_bytes(content[start : start + 2], order)
    return start + 2 + 12 * entries + 4


def _lacks_end_of_codestream(content: bytes) -> bool:
    """Whether no EOC marker follows the first SOD marker (ISO 15444-1, A.4).

    Packets hold no byte pair above 0xFF8F (B.10.1), so the marker can simply be searched for.
    """
    data = content.find(_START_OF_DATA)
    return data < 0 or content.find(_END_OF_CODESTREAM, data) < 0


def size_of_gif(content: bytes) -> tuple[int, int]:
    r"""Width and height of a GIF's screen, widened where its first frame reaches beyond it.

    Pillow makes such a frame's background before it says how large it is. (0, 0) where the bytes
    are no GIF or end before a frame. (GIF89a, sections 18 to 20.)

    >>> size_of_gif(b"GIF89a\x05\0\x04\0\0\0\0,\x02\0\0\0\x08\0\x01\0\0")
    (10, 4)
    """
    if not content.startswith(_GIF):
        return 0, 0
    flags = content[10:11] or b"\0"
    at = 13 + (3 << (flags[0] & 7) + 1 if flags[0] & 0x80 else 0)
    while at < len(content) and content[at] not in b",;":
        at = _end_of_extension(content, at + 2) if content[at] == 0x21 else at + 1
    if content[at : at + 1] != b"," or len(content) < at + 9:
        return 0, 0
    screen = (_little(content, 6), _little(content, 8))
    left, top, width, height = (_little(content, at + offset) for offset in (1, 3, 5, 7))
    return max(screen[0], left + width), max(screen[1], top + height)


def _end_of_extension(content: bytes, at: int) -> int:
    """Behind the blocks that begin here, the last of which is empty."""
    while at < len(content) and content[at]:
        at += 1 + content[at]
    return at + 1


def _little(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 2], "little")
