from __future__ import annotations

import pytest

from winnow.tracking.naming import cut, flatten, is_allowed_name


@pytest.mark.parametrize("name", ["val/map_50", "lr/backbone", "a b", "x.y-z", "val/map_class/Ampel grün"])
def test_names_in_mlflows_alphabet_pass(name: str):
    assert is_allowed_name(name)


@pytest.mark.parametrize(
    "name", ["val/mAP@50", "a[0]", "f(x)", "a,b", "", "/a", "a/", "a//b", "../a", "a/./b", 3, "x" * 251]
)
def test_names_that_mlflow_refuses_are_known(name: object):
    assert not is_allowed_name(name)


def test_winnow_and_mlflow_agree_on_names():
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric_name

    for name in ("val/map_50", "a b", "x.y-z", "Ampel grün"):
        _validate_metric_name(name)
    for name in ("val/mAP@50", "a[0]", "/a", "a/", "a//b", "../a"):
        with pytest.raises(MlflowException):
            _validate_metric_name(name)
        assert not is_allowed_name(name)


def test_nested_params_get_dotted_names_and_short_values():
    params = {"model": {"lr": 0.1, "betas": (0.9, 0.999), "name": "x"}, "none": None, "on": True, "empty": {}}
    assert flatten(params) == {
        "model.lr": "0.1",
        "model.betas": "[0.9, 0.999]",
        "model.name": "x",
        "none": "null",
        "on": "true",
        "empty": "{}",
    }


def test_long_values_are_cut_to_the_limit_and_told(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    assert cut({"a": "x" * 11, "b": "x" * 10}, 10) == {"a": "x" * 9 + "…", "b": "x" * 10}
    assert ": a" in caplog.text
