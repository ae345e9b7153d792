"""From token ids to text that is safe to show, and to the stop string that ends it.

A tokenizer may need several tokens for one character, and a stop string may be
spread over several tokens. So text is held back while its last character is
incomplete, or while its end could be the beginning of a stop string.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from switchyard.server.engine.ports import TextDecoder

_INCOMPLETE = "�"
_LONGEST_CHARACTER_TOKENS = 4
"""UTF-8 needs at most four bytes, so at most four byte-level tokens, per character."""


@dataclass(slots=True)
class Detokenizer:
    """The text of one answer, grown token by token.

    Decoding starts again from a few tokens back, because the text of a token
    can depend on the token before it (leading spaces); the part already known
    is subtracted.

    Attributes:
        decoder: turns ids into text.
        stop: strings before which the text ends.
        matched_stop: the stop string that was found, or empty.
    """

    decoder: TextDecoder
    stop: tuple[str, ...] = ()
    matched_stop: str = ""
    _ids: list[int] = field(default_factory=list)
    _prefix: int = 0
    _read: int = 0
    _held: str = ""

    def push(self, token_id: int) -> str:
        """Adds one token and returns the text that has become safe to show."""
        self._ids.append(token_id)
        before = self.decoder.decode(self._ids[self._prefix : self._read])
        after = self.decoder.decode(self._ids[self._prefix :])
        incomplete = after.endswith(_INCOMPLETE) and len(self._ids) - self._read < _LONGEST_CHARACTER_TOKENS
        if incomplete or len(after) <= len(before):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return self._release(after[len(before) :])

    def finish(self) -> str:
        """Returns what is still held back, when no further token can come."""
        if self.matched_stop:
            return ""
        before = self.decoder.decode(self._ids[self._prefix : self._read])
        rest = self.decoder.decode(self._ids[self._prefix :])[len(before) :]
        self._read = self._prefix = len(self._ids)
        shown = self._release(rest) if rest else ""
        held, self._held = self._held, ""
        return shown + held

    def _release(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        found = sorted((text.find(stop), -len(stop), stop) for stop in self.stop if stop in text)
        if found:
            position, _, self.matched_stop = found[0]
            return text[:position]
        keep = max((_overlap(text, stop) for stop in self.stop), default=0)
        if keep:
            self._held = text[-keep:]
            return text[:-keep]
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
