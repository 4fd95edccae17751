"""Helpers that several test modules share. Test modules import nothing from one another or from conftest."""

import os

import pytest

from ganlab.files import cache_folder

# failed assertions in these show their values
pytest.register_assert_rewrite("helpers.broken", "helpers.plain_loop", "helpers.processes")

# a cache of the tests' own: what a user has measured with `ganlab bench --tune` must not change them
if (own := cache_folder("tests")) is not None and own.parent.name != "tests":
    os.environ["GANLAB_CACHE"] = str(own)
