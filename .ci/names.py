"""Check that one word has one meaning: no module or package and no public class has its name twice in gancolor/.

python .ci/names.py     lists what is twice, one line each, and exits with 1
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "gancolor"


def main() -> int:
    """List every name that stands for two things."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE)
        name = where.parent.name if path.stem.startswith("__") else path.stem
        homes[f"module {name}"].add(str(where.parent if path.stem.startswith("__") else where))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for public in _types_in(node):
                homes[f"class {public}"].add(str(where))
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    for name, places in sorted(twice.items()):
        print(f"{name} must have one meaning, got {len(places)}: {', '.join(sorted(places))}")
    return 1 if twice else 0


def _types_in(node: ast.stmt) -> list[str]:
    """The public classes and type aliases (CamelCase) that a statement defines."""
    if isinstance(node, ast.ClassDef):
        names = [node.name]
    elif isinstance(node, ast.Assign):
        names = [one.id for one in node.targets if isinstance(one, ast.Name)]
    else:
        return []
    return [name for name in names if name[0].isupper() and not (name.isupper() and len(name) > 1)]


if __name__ == "__main__":
    sys.exit(main())
