"""A run's secrets in its processes on other nodes.

The processes of a Ray that a run has started inherit the driver's environment; those of a cluster that it has joined do
not, and what Ray would send them it keeps in clear. So each resolves the profile's secrets itself, where it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from tunery.errors import ProfileError
from tunery.home import Home
from tunery.profile import Profile, load_profile

log = logging.getLogger(__name__)

PROFILE = "TUNERY_RUN_PROFILE"
"""The environment variable with the profile's name."""


def processes_of(profile: Profile, variables: Mapping[str, str]) -> dict[str, object]:
    """Ray's runtime environment for a run on a cluster that it joins: those variables, and where the secrets are."""
    if not profile.secrets:
        return {"env_vars": dict(variables)} if variables else {}
    return {
        "env_vars": {**variables, PROFILE: profile.name},
        "worker_process_setup_hook": f"{__name__}.{resolve.__name__}",
    }


def resolve() -> None:
    """Ray calls it in each process before anything else runs there.

    What is set there already stays: pods have theirs from mounted secrets. What a node does not know is told in the
    process's log, and by name where it is used and refused: most processes need no secret.
    """
    try:
        profile = load_profile(os.environ[PROFILE], Home.from_environment())
    except ProfileError as error:
        log.warning("this node's environment is taken as it is: %s", error)
        return
    for name, secret in profile.secrets.items():
        if name in os.environ:
            continue
        try:
            os.environ[name] = secret.resolve()
        except ProfileError as error:
            log.warning("%s is not set on this node: %s", name, error)
