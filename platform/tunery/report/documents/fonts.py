"""Fonts for labels in any language: matplotlib's own has no Chinese, so an installed one is looked for where needed.

Where none is, labels show the characters as `\\u4e2d` (they stay different, and no boxes), and the report says what to
install.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

OWN = "DejaVu Sans"
"""Comes with matplotlib."""
TO_INSTALL = "fonts-noto-cjk on Debian and Ubuntu, google-noto-sans-cjk-fonts on Fedora"
# The order in which files are looked into: sans-serif fonts with simplified Chinese forms before all others.
_PREFERRED = ("notosanscjk", "notosanssc", "sourcehansans", "wqy-microhei", "wqy-zenhei", "msyh", "pingfang", "simhei",
              "hiragino", "arialunicode", "arial unicode", "droidsansfallback", "unifont")  # fmt: skip


@dataclass(frozen=True)
class Fonts:
    """What labels are drawn with."""

    families: tuple[str, ...]
    """For matplotlib's `font.family`: a character comes from the first that has it."""
    missing: frozenset[str] = frozenset()
    """Characters that none of them has."""

    def label(self, text: str) -> str:
        """A text as it can be drawn."""
        text = "".join(ascii(letter)[1:-1] if letter in self.missing else letter for letter in text)
        return text.replace("$", r"\$")  # it would begin a formula

    @property
    def problem(self) -> str:
        """What is not as it should be, and what to do; empty where all is well."""
        if not self.missing:
            return ""
        some = "".join(sorted(self.missing)[:8])
        return f"no installed font has {some}: labels show such characters as codes; install one, such as {TO_INSTALL}"


def fonts_for(characters: Iterable[str], files: Sequence[str] | None = None) -> Fonts:
    """Fonts that have these characters; `files` are looked into beside matplotlib's own, by default all installed."""
    own = _has(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    missing = frozenset(letter for letter in characters if letter.isprintable() and ord(letter) not in own)
    best, covered = "", frozenset[str]()
    # Matplotlib's list of fonts is made once a user: one installed since would be missed.
    for file in sorted(files or font_manager.findSystemFonts(), key=_rank) if missing else ():
        here = _has(Path(file))
        has = frozenset(letter for letter in missing if ord(letter) in here)
        if len(has) > len(covered):
            best, covered = file, has
        if covered == missing:
            break
    if not best:
        return Fonts((OWN,), missing)
    font_manager.fontManager.addfont(best)
    return Fonts((OWN, FT2Font(best).family_name), missing - covered)


def _rank(file: str) -> tuple[int, str]:
    name = Path(file).name.lower()
    return next((place for place, part in enumerate(_PREFERRED) if part in name), len(_PREFERRED)), name


def _has(file: Path) -> frozenset[int]:
    """The characters of a font; none where it cannot be read."""
    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()
