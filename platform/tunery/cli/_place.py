"""Where the commands on runs look: the home, the profile and its client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunery.home import Home

if TYPE_CHECKING:
    from tunery.begin import Found
    from tunery.client import Client
    from tunery.profile import Profile


def here(profile: str | None = None) -> tuple[Profile, Client]:
    """The profile of that name, or the default one, and the client it sends plans with."""
    from tunery.client import client_for
    from tunery.profile import load_profile

    home = Home.from_environment()
    place = load_profile(profile, home)
    return place, client_for(place, home)


def found(client: Client, name: str, *, of: str = "") -> Found:
    """The checkpoint that a user has named; newer ones that are damaged are told."""
    from tunery.cli.output import note

    checkpoint = client.checkpoint(name, of=of)
    for problem in checkpoint.passed_over:
        note(f"passed over: {problem}")
    return checkpoint
