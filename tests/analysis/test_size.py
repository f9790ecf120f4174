"""The statistics can be read piece by piece."""

import ast
from pathlib import Path

MOST_LINES = 40


def test_no_function_of_the_analysis_is_over_40_lines():
    long = [
        f"{path.name}: {node.name}"
        for path in Path("voicepatch/analysis").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MOST_LINES
    ]
    assert long == []
