"""Every row of the catalogue of faults has a test, and a line in the documents."""

import ast
import re
from pathlib import Path

from catalogue import ABSENT, HAPPENS, ROWS, SECTIONS
from faults_table import cell, rows_of

TESTS = Path(__file__).parent


def rows_with_tests():
    """Rows by the names of the tests."""
    return {
        row
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for row in rows_of(node.name)
    }


def test_every_row_has_a_test_and_every_test_a_row():
    assert sorted(ROWS.keys() - rows_with_tests()) == []
    assert sorted(rows_with_tests() - ROWS.keys()) == []


def test_rows_are_complete_and_in_order():
    known = ROWS.keys() | ABSENT.keys()
    for letter in SECTIONS:
        numbers = sorted(int(row[1:]) for row in known if row[0] == letter)
        missing = set(range(1, numbers[-1] + 1)) - set(numbers)
        # Numbers that the catalogue itself leaves out.
        assert missing <= {"C": {6, 7}, "G": {15}, "J": {8}, "L": {7}}.get(letter, set()), (
            letter,
            missing,
        )
    assert list(ROWS) == sorted(ROWS, key=lambda row: (row[0], int(row[1:])))
    assert not ROWS.keys() & ABSENT.keys()


def test_documents_list_exactly_the_catalogue_with_a_result_each():
    page = (TESTS.parent / "docs" / "faults.md").read_text()
    found = re.findall(r"^\| ([A-L]\d+) \| (.+?) \| (.*) \|$", page, re.M)
    assert {row: provoked for row, provoked, _ in found} == ROWS
    assert [row for row, _, result in found if not result.strip()] == []
    assert set(re.findall(r"^\| ([A-L]\d+) \| [^|]+ \|$", page, re.M)) == ABSENT.keys()


def test_flags_on_the_page_can_be_copied_and_cells_are_sentences():
    page = (TESTS.parent / "docs" / "faults.md").read_text()
    rows = [line for line in page.splitlines() if line[:1] == "|" and not line.startswith("|---")]
    for line in rows:
        outside = "".join(line.split("`")[::2])
        assert not re.search(r"--[a-z]", outside), line  # rendered as a dash
    for row, said in HAPPENS.items():
        assert f"| {row} | {ROWS[row]} | {cell(said)} |" in page
        assert " " in said and said.endswith(".")
