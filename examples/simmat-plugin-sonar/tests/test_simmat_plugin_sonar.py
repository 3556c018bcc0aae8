"""The sensor keeps the contract of SimMAT."""

import pytest
from simmat_plugin_sonar import Sonar
from simmat_testing import ModalityContract


class TestSonar(ModalityContract):
    modality = pytest.fixture(lambda self: Sonar())
