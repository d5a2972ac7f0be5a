"""Whether a file ends before the end that its own container states."""

from collections.abc import Mapping
from typing import Literal

_BOXES = b"ftyp"
_JPEG2000 = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
_BYTE_ORDER: Mapping[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
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
