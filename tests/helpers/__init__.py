"""Helpers that several test modules share. Test modules import nothing from one another or from conftest."""

import pytest

# failed assertions in these show their values
pytest.register_assert_rewrite("helpers.broken", "helpers.plain_loop", "helpers.processes")
