"""How requests are turned down in the embedded world: in a few words, with the reason, perhaps with an offer."""

from __future__ import annotations

from functools import cache

from accord.demo.knowledge import concepts, plain
from accord.demo.tasks import Reason

REFUSALS: dict[Reason, tuple[str, ...]] = {
    "unsafe": (
        "I can't help with that because it could harm people or parts.",
        "That would be unsafe, so I won't help with it.",
        "I won't help with something that puts people at risk.",
    ),
    "proprietary": (
        "I can't share that because it is confidential.",
        "That belongs to a customer, so I won't share it.",
        "I won't give out confidential data.",
    ),
    "scope": (
        "I can't help with that because it has nothing to do with chip testing.",
        "That is outside my field, so I can't help with it.",
        "I only answer questions on chip testing, so I can't help with that.",
    ),
}
OFFERS = ("I can explain {x} instead.", "Ask me about {x} if you like.")


@cache
def offers() -> frozenset[str]:
    """Every offer of help, as it is looked up: only with what the assistant is for."""
    return frozenset(plain(offer.format(x=name)) for offer in OFFERS for name in concepts())
