"""Who implements a boundary reads nothing else than the boundary: each of its methods says what it does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType

import pytest

from cloudmytask import boundaries

METHODS = (FunctionType, property)


def _protocols() -> Iterator[type]:
    for module in iter_modules(boundaries.__path__):
        found = import_module(f"{boundaries.__name__}.{module.name}")
        for each in vars(found).values():
            if inspect.isclass(each) and getattr(each, "_is_protocol", False) and each.__module__ == found.__name__:
                yield each


@pytest.mark.parametrize("protocol", list(_protocols()), ids=lambda each: each.__name__)
def test_each_method_is_documented(protocol: type) -> None:
    methods = {
        name: each
        for name, each in vars(protocol).items()
        if inspect.isfunction(each) or inspect.isdatadescriptor(each)
    }
    missing = [name for name, each in methods.items() if not name.startswith("_") and not inspect.getdoc(each)]
    assert protocol.__doc__ and not missing


def test_there_are_boundaries() -> None:
    assert {"JobStore", "PeerDoor", "Link", "Bus", "Clock", "ClusterDoor"} <= {each.__name__ for each in _protocols()}
