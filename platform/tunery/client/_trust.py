"""Which certificates are believed, and what to do about one that is not."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from tunery.errors import ProfileError, UnreachableError
from tunery.profile import LOCAL, Profile


@dataclass(frozen=True)
class Trust:
    """Without a profile: what this machine believes."""

    tls: ssl.SSLContext | bool = True
    """As httpx takes it."""
    remedy: str = (
        "SSL_CERT_FILE in the environment, and MLFLOW_TRACKING_SERVER_CERT_PATH for MLflow's own client, "
        "name the file of the authority that vouches for it"
    )

    @classmethod
    def of(cls, profile: Profile) -> Trust:
        """What the profile believes. ProfileError where its `ca` cannot be read."""
        if profile.target == LOCAL:  # has no `ca`: MLflow's own client takes part there
            return cls()
        if profile.ca is None:
            remedy = f'name the file of the authority that vouches for it: ca = "FILE" in [profiles.{profile.name}]'
            return cls(remedy=remedy)
        path = Path(profile.ca).expanduser()
        context = ssl.create_default_context()
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ProfileError(f"ca of profile {profile.name!r}: {path} holds no certificates: {why}") from error
        return cls(context, f"it is none that {path}, the ca of profile {profile.name!r}, vouches for at this address")

    def refusal(self, told: str, error: Exception) -> UnreachableError | None:
        """The error for a server whose certificate is not believed; None: something else is wrong with it."""
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            return None
        return UnreachableError(f"{told} has a certificate that is not trusted here: {error}; {self.remedy}")
