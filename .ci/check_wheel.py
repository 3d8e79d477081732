"""Builds the wheel from the tracked files and holds that it ships the two packages, whole."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"keras_greedylr": "keras_greedylr", "agents": "keras_greedylr_agents"}  # folder: name


def tracked_files(*folders: str) -> list[str]:
    """Returns the files that git knows, under the folders or all, by POSIX paths."""
    listed = subprocess.check_output(["git", "ls-files", "-z", *folders], cwd=ROOT, text=True)
    return listed.rstrip("\0").split("\0")


def build_wheel(folder: Path) -> Path:
    """Builds from a copy: a `build/` left in the tree would be packed too."""
    tree = folder / "tree"
    for name in tracked_files():
        copy = tree / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "-w", str(folder), str(tree)]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def main() -> None:
    """Compares the wheel with the tree."""
    expected = set()
    for name in tracked_files(*PACKAGES):
        folder, *rest = PurePosixPath(name).parts
        expected.add("/".join([PACKAGES[folder], *rest]))

    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        names = set(zipfile.ZipFile(wheel).namelist())
        name, size = wheel.name, wheel.stat().st_size
    shipped = {path for path in names if ".dist-info/" not in path}

    for problem, paths in {
        "tracked, but not in the wheel (see package_data in setup.py)": expected - shipped,
        "in the wheel, but not tracked": shipped - expected,
    }.items():
        if paths:
            sys.exit(f"{problem}:\n  " + "\n  ".join(sorted(paths)))
    if not any(path.endswith("licenses/LICENSE") or path.endswith("/LICENSE") for path in names):
        sys.exit("the wheel has no LICENSE")
    print(f"{name}: {len(shipped)} files, {size / 1024:.0f} kB, as tracked")


if __name__ == "__main__":
    main()
