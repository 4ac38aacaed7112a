from __future__ import annotations

import subprocess
import sys

import pytest

import tuners
from tuners.errors import TunerError


def test_the_methods_are_the_folders_with_a_configuration() -> None:
    assert tuners.names() == ("full", "lora", "qlora", "qst")


def test_a_method_says_which_base_it_needs() -> None:
    assert tuners.config_class("lora")(method="lora").quantisation == "none"
    double = tuners.config_class("qlora")
    assert double(method="qlora").quantisation == "nf4-double"
    assert double.model_validate({"double_quantisation": False}).quantisation == "nf4"


def test_an_unknown_method_is_answered_with_a_suggestion() -> None:
    with pytest.raises(TunerError, match="unknown tuning method 'lroa'; did you mean 'lora'"):
        tuners.config_class("lroa")
    with pytest.raises(TunerError, match="known: full, lora, qlora"):
        tuners.config_class("engine")


def test_names_and_configurations_load_nothing_heavy() -> None:
    code = (
        "import sys, tuners; [tuners.config_class(n) for n in tuners.names()]; "
        "print([m for m in ('torch', 'transformers', 'numpy', 'peft', 'ray') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
