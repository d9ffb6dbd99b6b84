"""DES of one block, for the one use that is left of it: passwords of VNC servers.

FIPS 46-3, https://csrc.nist.gov/files/pubs/fips/46-3/final/docs/fips46-3.pdf. It keeps no secret
from anybody who listens; a VNC server on the loopback address asks for nothing better.
"""

from __future__ import annotations

# Each table names, for each bit of its result, the bit of its input, counted from 1 at the left.
IP = tuple(start - 8 * row for start in (58, 60, 62, 64, 57, 59, 61, 63) for row in range(8))
E = tuple((4 * block + at - 1) % 32 + 1 for block in range(8) for at in range(6))
P = (
    *(16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10),
    *(2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25),
)
PC1 = (
    *(57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18),
    *(10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36),
    *(63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22),
    *(14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4),
)
PC2 = (
    *(14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10),
    *(23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2),
    *(41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48),
    *(44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32),
)
SHIFTS = (1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1)
# S1 to S8, four rows of sixteen hexadecimal digits each
BOXES = tuple(
    [int(digit, 16) for digit in rows]
    for rows in (
        "e4d12fb83a6c5907" "0f74e2d1a6cb9538" "41e8d62bfc973a50" "fc8249175b3ea06d",
        "f18e6b34972dc05a" "3d47f28ec01a69b5" "0e7ba4d158c6932f" "d8a13f42b67c05e9",
        "a09e63f51dc7b428" "d709346a285ecbf1" "d6498f30b12c5ae7" "1ad069874fe3b52c",
        "7de3069a1285bc4f" "d8b56f03472c1ae9" "a690cb7df13e5284" "3f06a1d8945bc72e",
        "2c417ab6853fd0e9" "eb2c47d150fa3986" "421bad78f9c5630e" "b8c71e2d6f09a453",
        "c1af92680d34e75b" "af427c9561de0b38" "9ef528c3704a1db6" "432c95fabe17608d",
        "4b2ef08d3c975a61" "d0b7491ae35c2f86" "14bdc37eaf680592" "6bd814a7950fe23c",
        "d2846fb1a93e50c7" "1fd8a374c56b0e92" "7b419ce206adf358" "21e74a8dfc90356b",
    )
)  # fmt: skip


def encrypt(key: bytes, block: bytes) -> bytes:
    """The eight bytes of `block` under the eight of `key`, whose parity bits count for nothing."""
    left, right = _halves(_picked(int.from_bytes(block, "big"), 64, IP), 32)
    for subkey in _subkeys(int.from_bytes(key, "big")):
        left, right = right, left ^ _mixed(right, subkey)
    last = (right << 32) | left
    return _picked(last, 64, tuple(IP.index(at) + 1 for at in range(1, 65))).to_bytes(8, "big")


def _picked(value: int, width: int, table: tuple[int, ...]) -> int:
    result = 0
    for at in table:
        result = result << 1 | value >> (width - at) & 1
    return result


def _halves(value: int, width: int) -> tuple[int, int]:
    return value >> width, value & ((1 << width) - 1)


def _subkeys(key: int) -> list[int]:
    left, right = _halves(_picked(key, 64, PC1), 28)
    found = []
    for shift in SHIFTS:
        left, right = (_turned(half, shift) for half in (left, right))
        found.append(_picked(left << 28 | right, 56, PC2))
    return found


def _turned(half: int, shift: int) -> int:
    return (half << shift | half >> (28 - shift)) & ((1 << 28) - 1)


def _mixed(half: int, subkey: int) -> int:
    spread = _picked(half, 32, E) ^ subkey
    result = 0
    for number, box in enumerate(BOXES):
        bits = spread >> (42 - 6 * number) & 0x3F
        row, column = bits >> 4 & 2 | bits & 1, bits >> 1 & 0xF
        result = result << 4 | box[16 * row + column]
    return _picked(result, 32, P)
