"""How long a server that does not answer is waited for."""

from __future__ import annotations

FIRST_WAITS_S = (0.5, 1.0, 2.0)
"""Before the server has answered once: a wrong address is told within seconds."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""From its first answer on."""
