"""Options of the suites."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peer", metavar="DIR", help="a checkout of junyanz/pytorch-CycleGAN-and-pix2pix to time beside")
    parser.addoption(
        "--images", type=int, default=2400, metavar="N", help="the files of test_store.py, in both domains"
    )
    parser.addoption("--many", type=int, default=100_000, metavar="N", help="the images whose memory it measures")
