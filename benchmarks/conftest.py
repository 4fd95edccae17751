"""Options of the suites."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peer", metavar="DIR", help="a checkout of junyanz/pytorch-CycleGAN-and-pix2pix to time beside")
