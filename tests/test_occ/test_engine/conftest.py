"""Makes the toy project importable under one name in tests and configs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
