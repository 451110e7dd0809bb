"""dragoman and its peers, in real processes."""

import pytest

pytest.register_assert_rewrite("tests.interop.documents")
