"""What belongs to the process: here, where MLX puts the programs that it compiles and runs."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from adapters.mlx import gpu
gpu.apply(None)
import mlx.core as mx
mx.eval(mx.compile(lambda x: mx.exp(x) * 2 + 1)(mx.ones(7)))
print(os.environ.get("TMPDIR", ""))
"""


def where(home: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("TMPDIR",)}
    kept.pop("XDG_CACHE_HOME", None)
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", CODE],
        env=kept | {"HOME": str(home)} | environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout.strip()


@pytest.fixture
def shared() -> bool:
    """Whether the system's temporary folder is everybody's; on macOS each user has one."""
    return bool(Path("/tmp").stat().st_mode & stat.S_IWOTH)  # noqa: S108


def test_programs_are_kept_where_nobody_else_writes(tmp_path: Path, shared: bool) -> None:
    folder = tmp_path / ".cache" / "portico"
    assert where(tmp_path) == (str(folder) if shared else "")
    if shared:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_who_has_named_a_folder_keeps_it(tmp_path: Path) -> None:
    assert where(tmp_path, TMPDIR=str(tmp_path)) == str(tmp_path)


def test_a_home_that_is_no_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert where(tmp_path / "file") == ""
