from __future__ import annotations

import pytest
import torch

from tuners.engine import gemm
from tuners.engine.gemm import back, linear


@pytest.fixture(autouse=True, params=["onednn", "torch"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library in its turn, whichever this processor has it by."""
    monkeypatch.setattr(gemm, "_ONEDNN", request.param == "onednn")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 5, 3), (350, 384, 1536), (17, 1536, 384)])
def test_products_are_those_of_float32(rows: int, inner: int, outer: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=draw).to(dtype) for shape in ((rows, inner), (outer, inner), (outer,)))
    close = 1e-5 if dtype == torch.float32 else 2e-2
    expected = x.double() @ w.double().t() + b.double()
    torch.testing.assert_close(linear(x, w, b).double(), expected, rtol=close, atol=close * inner**0.5)
    torch.testing.assert_close(linear(x, w, None).double(), expected - b, rtol=close, atol=close * inner**0.5)
    g = torch.randn(rows, outer, generator=draw).to(dtype)
    torch.testing.assert_close(back(g, w).double(), g.double() @ w.double(), rtol=close, atol=close * outer**0.5)


def test_the_library_goes_by_the_processors_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, by_onednn in (("AMD EPYC 9R14", True), ("Intel Xeon 2.50GHz", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {"cpu_name": name})
        assert gemm._by_onednn() == by_onednn
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not gemm._by_onednn()


def test_a_row_of_nan_stays_in_its_row() -> None:
    draw = torch.Generator().manual_seed(0)
    x, w = torch.randn(40, 64, generator=draw), torch.randn(96, 64, generator=draw)
    before = linear(x, w, None)
    x[13] = float("nan")
    after = linear(x, w, None)
    rest = torch.arange(40) != 13
    assert after[13].isnan().all()
    assert torch.equal(before[rest], after[rest])
