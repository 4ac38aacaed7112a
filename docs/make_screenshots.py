"""Pictures of a finished sweep on MLflow's pages, for the documentation.

    platform up && platform submit SPEC --profile here
    python docs/make_screenshots.py EXPERIMENT MODEL [--profile here] [--out docs/mlflow]

Needs Debian's packages chromium and chromium-driver.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from tests.browser import Browser
from tests.mlflow_pages import look, study_of
from tunery.home import Home
from tunery.profile import load_profile


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("experiment", help="the sweep's name")
    parser.add_argument("model", help="the registered model's name")
    parser.add_argument("--profile", default="here")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "mlflow")
    chosen = parser.parse_args(arguments)
    profile = load_profile(chosen.profile, Home.from_environment())
    secrets = profile.environment()
    user, password = (secrets.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    chosen.out.mkdir(parents=True, exist_ok=True)
    with profile.secrets_at_hand(), tempfile.TemporaryDirectory() as folder:
        study = study_of(MlflowClient(profile.tracking_uri), chosen.experiment, chosen.model)
        with Browser(Path(folder), width=1600, height=1000) as browser:
            look(browser, profile.tracking_uri, (user, password) if user else None, study, chosen.out)
    print(f"written: {', '.join(sorted(str(each) for each in chosen.out.glob('*.png')))}")


if __name__ == "__main__":
    main()
