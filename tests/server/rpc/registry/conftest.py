from __future__ import annotations

import pytest
from handmade import write_base

from switchyard.registry.base_model import BaseModelSpec, describe_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSpec:
    """The base model that everything here is made for."""
    return describe_base(write_base(tmp_path_factory.mktemp("base")), "tiny")
