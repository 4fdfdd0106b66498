"""Gives the data of a relocatable ELF object addresses of its own, whatever it is linked into.

Every reference to the gathered data sections is a 64-bit address (the compiler was told so), and is
filled in here, once and for all: the linker sees none of them. What is left of the sections is the
image that the runtime copies to those addresses. Calls that announce loads, which nobody needs to
know of, become instructions that do nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
RELOCATIONS, NO_BITS = 4, 8  # types of sections
R_NONE, R_64, R_PLT32 = 0, 1, 4
ALLOC, WRITE = 2, 1
CALL, NOP5 = 0xE8, bytes((0x0F, 0x1F, 0x44, 0x00, 0x00))
LOADS = re.compile(r"__tsan_(unaligned_)?read(\d+|_range)$")
ALIGN = 128  # a line of the arena (core/arena.h): where each of the sections begins


class PlaceError(Exception):
    """The object refers to its data in a way that cannot be placed; the reason in one line."""


@dataclass
class Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    head: int  # where its header is in the file


class Elf:
    """A relocatable x86-64 object: sections and symbols, changed in place."""

    def __init__(self, path: Path) -> None:
        self.bytes = bytearray(path.read_bytes())
        if self.bytes[:6] != b"\x7fELF\x02\x01" or self.bytes[16:20] != b"\x01\0\x3e\0":
            raise PlaceError(f"{path.name} is not a relocatable x86-64 object")
        (at,) = struct.unpack_from("<Q", self.bytes, 40)
        count, names = struct.unpack_from("<HH", self.bytes, 60)
        raw = [SECTION.unpack_from(self.bytes, at + i * SECTION.size) for i in range(count)]
        self.sections = [
            Section(self.text(raw[names][4], s[0]), s[1], s[2], s[4], s[5], s[6], s[7], s[8],
                    at + i * SECTION.size)
            for i, s in enumerate(raw)
        ]  # fmt: skip

    def text(self, table: int, at: int) -> str:
        end = self.bytes.index(0, table + at)
        return self.bytes[table + at : end].decode()

    def index(self, name: str) -> int:
        return next(i for i, section in enumerate(self.sections) if section.name == name)

    def set_flags(self, index: int, flags: int) -> None:
        struct.pack_into("<Q", self.bytes, self.sections[index].head + 8, flags)

    def symbol(self, table: Section, number: int) -> tuple[str, int, int]:
        """(name, section, value)"""
        name, _, _, section, value, _ = SYMBOL.unpack_from(
            self.bytes, table.offset + number * SYMBOL.size
        )
        return self.text(self.sections[table.link].offset, name), section, value

    def relocations(self) -> Iterator[tuple[Section, int, int, int, str, int, int]]:
        """(section changed, place of the entry, offset, type, symbol, its section, its value)"""
        for table in self.sections:
            if table.kind != RELOCATIONS:
                continue
            target, symbols = self.sections[table.info], self.sections[table.link]
            for at in range(table.offset, table.offset + table.size, RELOCATION.size):
                offset, info, addend = RELOCATION.unpack_from(self.bytes, at)
                name, section, value = self.symbol(symbols, info >> 32)
                yield target, at, offset, info & 0xFFFFFFFF, name, section, value + addend

    def drop(self, at: int) -> None:
        """Makes the relocation at this place one that does nothing."""
        offset, _, _ = RELOCATION.unpack_from(self.bytes, at)
        RELOCATION.pack_into(self.bytes, at, offset, R_NONE, 0)


def place(path: Path, data: str, bss: str, base: int) -> None:
    """Fills in every reference to the sections `data` and `bss`, which begin at `base`."""
    elf = Elf(path)
    index = {"data": elf.index(data), "bss": elf.index(bss)}
    if elf.sections[index["bss"]].kind != NO_BITS:
        raise PlaceError(f"{bss} has content")
    for i in index.values():
        if elf.sections[i].align > ALIGN:
            raise PlaceError(f"data is aligned to {elf.sections[i].align} bytes, at most {ALIGN}")
    behind = base + elf.sections[index["data"]].size
    start = {index["data"]: base, index["bss"]: (behind + ALIGN - 1) // ALIGN * ALIGN}
    for section in elf.sections:
        own = section in (elf.sections[index["data"]], elf.sections[index["bss"]])
        if section.flags & WRITE and section.size and not own:
            raise PlaceError(f"data in the section '{section.name}' cannot be placed in the arena")
    for target, at, offset, kind, name, section, value in elf.relocations():
        where = target.offset + offset
        if section in start:
            if kind != R_64:
                raise PlaceError(f"{target.name}+{offset:#x} does not name data by its address")
            struct.pack_into("<Q", elf.bytes, where, start[section] + value)
            elf.drop(at)
        elif kind == R_PLT32 and LOADS.match(name) and elf.bytes[where - 1] == CALL:
            elf.bytes[where - 1 : where + 4] = NOP5
            elf.drop(at)
    elf.set_flags(index["data"], ALLOC)
    elf.set_flags(index["bss"], ALLOC | WRITE)
    path.write_bytes(elf.bytes)
