"""How things look: bytes and texts in pieces that a template can mark, numbers and times for people."""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Collection
from functools import lru_cache
from itertools import groupby
from typing import Any

from records import KEPT_BYTES, iso_time

CONTEXT_CHARS = 120
HIT_CHARS = 900
SEARCHED_CHARS = 20_000
RECORD_CHARS = KEPT_BYTES  # so that a text is shown as far as the table keeps it
PIECES = 5_000  # each is an element, and a browser lays out no hundred thousand of them

# Characters that change how others look, or cannot be seen: they are shown by their code.
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
PLAIN = frozenset("\n\t\u200c\u200d")  # the last two join letters and emoji in ordinary texts
BAD_BYTE = "byte"

Piece = tuple[str, str]  # text, and what it is: "", "hidden", "byte", "around", "passage" or "word"


def record_bytes(content: Any, limit: int = RECORD_CHARS, size: int | None = None) -> list[Piece]:
    """Bytes as text: what is no UTF-8 as \\xff, and what cannot be seen as U+202E, marked as such; many of one kind
    in a row are one piece. At most about `limit` characters, and "…" if the record, of `size` bytes, goes on."""
    given = bytes(content)
    text = given[: limit * 4].decode(errors="surrogateescape")
    goes_on = (size or 0) > len(given) or len(given) > limit * 4
    pieces: list[Piece] = []
    left = limit
    for mark, run in groupby(text, mark_of):
        if left <= 0 or len(pieces) == PIECES:
            goes_on = True
            break
        characters = "".join(run)
        if mark == BAD_BYTE:
            kept = characters[: left // 4 + 1]
            shown, kind = "".join(f"\\x{ord(each) - 0xDC00:02x}" for each in kept), "byte"
            goes_on = goes_on or len(kept) < len(characters)
        elif mark:
            shown, kind = mark if len(characters) == 1 else f"{mark} ×{len(characters):,}", "hidden"
        else:
            shown, kind = characters[:left], ""
            goes_on = goes_on or len(characters) > left
        pieces.append((shown, kind))
        left -= len(shown)
    return [*pieces, ("…", "")] if goes_on else pieces


@lru_cache(maxsize=4096)
def mark_of(character: str) -> str:
    """How a character is marked: BAD_BYTE, or the code of one that cannot be seen; "" for an ordinary one."""
    if "\udc80" <= character <= "\udcff":  # "surrogateescape"; good UTF-8 has none of them
        return BAD_BYTE
    hidden = unicodedata.category(character) in HIDDEN_CATEGORIES and character not in PLAIN
    return f"U+{ord(character):04X}" if hidden else ""


def encoded(text: str) -> bytes:
    """A text as record_bytes takes it; half surrogates are bytes that are no UTF-8."""
    return text.encode(errors="surrogatepass")


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit].rstrip() + "…"


WORD = re.compile(r"\w+")


def excerpt(message: str, passage: str) -> tuple[int, int]:
    """Where the passage stands in the message; the whole message if it does not, as with joined excerpts."""
    start = message.find(passage) if passage.strip() != message.strip() else -1
    return (start, start + len(passage)) if start >= 0 else (0, len(message))


def words_in(text: str) -> set[str]:
    """The words of a text; of a long text, those of its beginning."""
    return set(WORD.findall(text[:SEARCHED_CHARS]))


def hit_text(message: str, passage: str, words: Collection[str]) -> list[Piece]:
    """The passage with these words marked in it. If it is not the whole message, it is marked itself, with some of the
    message around it; a long message is shown from where the first of the words stands."""
    start, end = excerpt(message, passage)
    is_part = (start, end) != (0, len(message))
    if not is_part and len(message) > HIT_CHARS:
        first = next((found.start() for found in WORD.finditer(message[:SEARCHED_CHARS]) if found[0] in words), 0)
        start = max(0, min(first - CONTEXT_CHARS, len(message) - HIT_CHARS))
    stop = min(end, start + HIT_CHARS)
    pieces: list[Piece] = []
    if start > 0:
        context = message[max(0, start - CONTEXT_CHARS) : start] if is_part else ""
        pieces.append(("…" + context if start > CONTEXT_CHARS or not is_part else context, "around"))
    pieces += marked(message[start:stop], words, "passage" if is_part else "")
    if stop < end:
        pieces.append(("…", ""))
    elif end < len(message):
        after = message[end : end + CONTEXT_CHARS]
        pieces.append((after + "…" * (len(message) > end + CONTEXT_CHARS), "around"))
    return [piece for piece in pieces if piece[0]]


def marked(text: str, words: Collection[str], otherwise: str) -> list[Piece]:
    pieces: list[Piece] = []
    place = 0
    for found in WORD.finditer(text):
        if found[0] in words:
            pieces += [(text[place : found.start()], otherwise), (found[0], "word")]
            place = found.end()
    return [*pieces, (text[place:], otherwise)]


def count(number: float | None) -> str:
    return "–" if number is None else f"{number:,.0f}"


def rate(number: float | None) -> str:
    """A number a second, with as many digits as say something."""
    if number is None:
        return "–"
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.1f}"


def seconds(number: float | None) -> str:
    if number is None:
        return "–"
    if number < 1:
        return f"{number * 1000:.0f} ms"
    if number < 100:
        return f"{number:.1f} s"
    minutes = number / 60
    return (
        f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.0f} h"
        if minutes < 2880
        else f"{minutes / 1440:.0f} d"
    )


def size(number: int | None) -> str:
    if number is None:
        return "no value"
    return f"{number:,} bytes" if number < 10_000 else f"{number / 1024:,.0f} KiB"


def clock(iso: str | None) -> str:
    """A time as a page without scripts shows it; the script puts it into the reader's zone."""
    date, _, rest = (iso or "").partition("T")  # a year may have more than four digits
    return f"{date} {rest[:8]}".rstrip() + (" UTC" if len(rest) > 8 else "")


def words_of(name: str) -> str:
    """`oldest_pending_seconds` as people write it."""
    return name.replace("_", " ")


FILTERS = {
    "from_base64": b64decode,
    "encoded": encoded,
    "record_bytes": record_bytes,
    "cut": cut,
    "count": count,
    "rate": rate,
    "seconds": seconds,
    "size": size,
    "from_ms": iso_time,
    "clock": clock,
    "words_of": words_of,
}
