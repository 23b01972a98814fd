"""Rules that send the error straight to points, and count entries, average over them or learn from each of them."""

from __future__ import annotations

from typing import Any

import feedalign as fa

RULES: dict[str, Any] = {
    "DFA": fa.DFA,
    "sign": lambda *a, **k: fa.DFA(*a, error="sign", **k),
    "DRTP": fa.DRTP,
    "ConditionedDFA": lambda *a, **k: fa.ConditionedDFA(*a, every=1, **k),
    "DirectKolenPollack": lambda *a, **k: fa.DirectKolenPollack(*a, lr=1.0, **k),
    "published": lambda *a, **k: fa.DirectKolenPollack(*a, lr=1.0, centred=False, **k),
}
