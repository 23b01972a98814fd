"""The reference documentation that comes with Python itself: embedded English text, without a download."""

from __future__ import annotations

# Shorter lines, such as "}" or "Example:", stand in many places and carry no passage from one place to the other.
_SHORT = 20


def python_topics() -> str:
    """Return the text of Python's `help()` topics, 0.3 to 0.7 million characters depending on Python's version.

    Many passages stand in several topics. Each line of at least 20 characters is kept once, where it stands first in
    the order of the topics' names. Otherwise a held-out part of the text would hold passages that were trained on.
    """
    from pydoc_data.topics import topics as found  # half a megabyte, which no other data set needs

    seen: set[str] = set()
    kept: list[str] = []
    for name in sorted(found):
        for line in found[name].splitlines():
            words = line.strip()
            if words in seen or not (words or (kept and kept[-1])):  # no two empty lines after each other
                continue
            if len(words) >= _SHORT:
                seen.add(words)
            kept.append(line.rstrip())
    return "\n".join(kept)
