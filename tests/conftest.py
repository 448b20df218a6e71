"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data with known answers: MLGUARD_TEST_DATA, or ../shared/data."""
    named = os.environ.get("MLGUARD_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no test data: {folder} has no manifest.json; set MLGUARD_TEST_DATA")
    return folder
