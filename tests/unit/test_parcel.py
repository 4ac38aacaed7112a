from __future__ import annotations

import random

import pytest

from tests.unit.client.fakes import make_plan
from tunery.errors import ConflictError, InputError
from tunery.parcel import MOST_BYTES, Parcel, check_version, run_of
from tunery.plan import Plan


def test_what_travels_comes_out_as_it_went_in() -> None:
    plan = make_plan()
    parcel = Parcel(plan.run_id, plan.model_dump_json().encode(), "1.0", offline=True, resume=True)
    metadata = parcel.metadata()
    assert Parcel.of(metadata | {"job_submission_id": "anything"}) == parcel
    assert Plan.model_validate_json(Parcel.of(metadata).plan) == plan
    assert run_of(metadata) == plan.run_id
    assert run_of(None) is run_of({"another": "job"}) is None
    plain = Parcel(plan.run_id, b"{}", "1.0")
    assert Parcel.of(plain.metadata()) == plain


def test_a_plan_that_no_variable_would_hold_is_refused_before_it_is_sent() -> None:
    noise = random.Random(1).randbytes(MOST_BYTES)
    with pytest.raises(InputError, match="takes 128 KiB compressed, and a job carries at most 96 KiB"):
        Parcel("large-01234567", noise, "1.0").metadata()


@pytest.mark.parametrize("packed", ["no base64!", "AAAA"])
def test_a_damaged_plan_and_a_job_of_somebody_else(packed: str) -> None:
    metadata = Parcel("glue-01234567", b"{}", "1.0").metadata()
    with pytest.raises(InputError, match="the plan that the job of run glue-01234567 carries is damaged"):
        Parcel.of(metadata | {"tunery.plan": packed})
    with pytest.raises(InputError, match="this is no job of tunery's"):
        Parcel.of({"name": "another"})


def test_another_version_is_refused_with_both() -> None:
    check_version("1.0", here="1.0")
    with pytest.raises(ConflictError, match=r"sent by tunery 9\.9, and the cluster has tunery 1\.0: install 1\.0"):
        check_version("9.9", here="1.0")
