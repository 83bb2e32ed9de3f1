"""How many times longer than usual a machine may take, e.g. one that is emulated."""

import os

PATIENCE = float(os.environ.get("LONGSHORE_TEST_PATIENCE") or 1)
