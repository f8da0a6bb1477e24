from __future__ import annotations

import pytest

from fullsend_receiver.catalogue.problems import (
    Problem,
    ProblemKind,
    symbolic_link,
    unreadable_folder,
    unreadable_manifest,
    without_manifest,
)
from fullsend_receiver.store.errors import ManifestError


@pytest.mark.parametrize(
    ("problem", "kind", "line"),
    [
        (
            without_manifest("alpha/tank/@a.zfs.zst"),
            ProblemKind.NO_MANIFEST,
            "alpha/tank/@a.zfs.zst: has no manifest; `fullsendd verify` makes one if it is whole",
        ),
        (unreadable_manifest(ManifestError("alpha/tank/@a.zfs.zst.json", "is bad")), ProblemKind.MANIFEST, None),
        (
            unreadable_folder("alpha/tank", "Permission denied"),
            ProblemKind.FOLDER,
            "alpha/tank: cannot be read: Permission denied",
        ),
        (
            symbolic_link("alpha/tank"),
            ProblemKind.LINK,
            "alpha/tank: is a symbolic link, so nothing in it is listed",
        ),
    ],
)
def test_what_it_is_and_how_it_is_said(problem: Problem, kind: ProblemKind, line: str | None) -> None:
    assert problem.kind is kind
    assert str(problem) == (line or "alpha/tank/@a.zfs.zst.json: is bad")
    assert problem.folder == "alpha/tank"


def test_a_manifest_error_says_the_line_of_its_problem() -> None:
    error = ManifestError("alpha/tank/@a.zfs.zst.json", "is bad")
    assert str(error) == str(unreadable_manifest(error))


def test_a_file_hides_what_is_in_its_folder_and_a_folder_what_is_below_it() -> None:
    file, folder = without_manifest("alpha/tank/@a.zfs.zst"), unreadable_folder("alpha/tank", "EIO")
    for problem, hidden in ((file, ["alpha/tank"]), (folder, ["alpha/tank", "alpha/tank/deep"])):
        found = [each for each in ("alpha", "alpha/tank", "alpha/tank/deep", "alpha/tanker") if problem.hides(each)]
        assert found == hidden


def test_a_file_hides_one_stream_and_a_folder_any() -> None:
    name = "alpha/tank/@a.zfs.zst"
    for problem in (without_manifest(name), unreadable_manifest(ManifestError(f"{name}.json", "is bad"))):
        assert problem.stream == name
    for problem in (unreadable_folder("alpha/tank.json", "EIO"), symbolic_link("alpha/tank.json")):
        assert problem.stream is None


def test_a_folder_with_a_colon_and_a_space_in_its_name_is_told_apart() -> None:
    """Nothing is read out of the line."""
    problem = unreadable_folder("alpha/a: b/@c", "EIO")
    assert problem.folder == "alpha/a: b/@c"
