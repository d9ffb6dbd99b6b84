"""What was typed at a boot menu, out of scan codes (VirtualBox) and of key symbols (VNC).

Scan codes: set 1 of the PC/XT keyboard, https://www.win.tue.nl/~aeb/linux/kbd/scancodes-1.html.
Key symbols: RFC 6143, section 7.5.4.
"""

from __future__ import annotations

from collections.abc import Iterable

ROWS = {
    0x02: ("1234567890-=", "!@#$%^&*()_+"),
    0x10: ("qwertyuiop[]", "QWERTYUIOP{}"),
    0x1E: ("asdfghjkl;'`", 'ASDFGHJKL:"~'),
    0x2B: ("\\zxcvbnm,./", "|ZXCVBNM<>?"),
    0x39: (" ", " "),
}
PLAIN = {start + at: keys[0][at] for start, keys in ROWS.items() for at in range(len(keys[0]))}
SHIFTED = {start + at: keys[1][at] for start, keys in ROWS.items() for at in range(len(keys[1]))}
ENTER, SHIFT, RELEASE, EXTENDED = 0x1C, 0x2A, 0x80, 0xE0
ENTER_SYMBOL = 0xFF0D


def typed_by_codes(codes: Iterable[int]) -> str:
    """The text; enter is a line's end, keys that make no text are left out."""
    text, is_shifted, is_extended = "", False, False
    for code in codes:
        if is_extended or code == EXTENDED:
            is_extended = code == EXTENDED
        elif code & ~RELEASE == SHIFT:
            is_shifted = not code & RELEASE
        elif code == ENTER:
            text += "\n"
        elif code in PLAIN:
            text += (SHIFTED if is_shifted else PLAIN)[code]
    return text


def typed_by_symbols(symbols: Iterable[int]) -> str:
    """The same of keys that were pressed over VNC."""
    return "".join(
        "\n" if symbol == ENTER_SYMBOL else chr(symbol)
        for symbol in symbols
        if symbol == ENTER_SYMBOL or 0x20 <= symbol < 0x7F
    )
