"""In which order a source numbers its classes, and in which a head does.

Folders are sorted by name, which says nothing about a head: every one must be
translated (`folder_numbers`). A published data set has an order of its own, mostly that
of the head in other words (`renumbering`); where no name shows that, it is taken on
trust, and `doubts` says so.
"""

import re
from collections.abc import Iterator, Sequence

from adarank_jax import errors


def folder_numbers(
    found: Sequence[str], names: Sequence[str], place: str, forms: bool = False
) -> list[int]:
    """Numbers the folders of classes as a head numbers its classes.

    Args:
        found: names of the folders; letters and digits count, or numbers from 0.
        names: of the classes, in the order of the head's rows.
        place: of the folders, for messages.
        forms: whether other forms of a word ("fear", "fearful") will do, as in
            `renumbering`, where every folder and every class has exactly one partner.

    Returns:
        The number of each folder, then those of classes that have no folder.

    Raises:
        InputError: a folder is none of the classes; the message lists both sides.

    Examples:
        >>> folder_numbers(("annual_crop", "sea lake"), ("Sea Lake", "Annual Crop"), "")
        [1, 0]
        >>> folder_numbers(("0", "10", "2"), [*"abcdefghijk"], "there")[:3]
        [0, 10, 2]
    """
    left, right = [*map(plain, found)], [*map(plain, names)]
    counts = [int(each) for each in found if re.fullmatch("[0-9]{1,9}", each)]
    if (numbered := match(found, names)) is not None:
        pass
    elif (
        len(counts) == len(found)
        and _differ(counts)
        and max(counts, default=0) < len(names)
    ):
        numbered = counts
    elif forms and len(partners := _partners(found, names)) == len(found) == len(names):
        numbered = [partners[i] for i in range(len(found))]
    else:
        there = [each for each, word in zip(found, left, strict=True)
                 if word not in right]  # fmt: skip
        here = [each for each, word in zip(names, right, strict=True)
                if word not in left]  # fmt: skip
        raise errors.InputError(
            "E310",
            f"{len(found)} folders of classes and the head {len(names)} classes; only "
            f"there: {listed(there)}; only in the head: {listed(here)}",
            where=f"`{place}`",
            remedy="name the folders as the classes, or number them from 0",
        )
    return numbered + [i for i in range(len(names)) if i not in numbered]


def match(found: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Finds the names of folders among those of classes.

    Args:
        found: names of the folders.
        names: of the classes.

    Returns:
        The place of each in `names`, compared as they are ("C", "C++") or else by
        letters and digits; None if one is not there, or two are the same.

    Examples:
        >>> match(["c++", "c"], ["c", "c++"]), match(["c++", "C"], ["c", "c++"])
        ([1, 0], None)
    """
    for form in (str, plain):
        left, right = [*map(form, found)], [*map(form, names)]
        if {*left} <= {*right} and _differ(left) and _differ(right):
            return [right.index(each) for each in left]
    return None


def _differ(values):
    """Tells whether no value occurs twice."""
    return len({*values}) == len(values)


def plain(name: str) -> str:
    """Keeps what tells two class names apart: letters and digits.

    Args:
        name: of a class or folder.

    Examples:
        >>> plain("Sea_Lake")
        'sealake'
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def listed(names: Sequence[str]) -> str:
    """Lists the first of some names.

    Args:
        names: any.

    Examples:
        >>> listed(["a", "b"])
        "'a', 'b'"
    """
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(map(repr, names[:8])) or "none") + more


def renumbering(found: Sequence[str], expected: Sequence[str], name: str) -> list[int]:
    """Compares two lists of class names that say the same in other words or order.

    Names are compared by their letters and digits; one of several words ("['happy',
    'smiling']") or a longer form ("fear", "fearful") will do where only one class has
    it. If every class has a partner, the order of the source is translated. Otherwise
    those that have one must have one number in both lists, because a head would judge
    by the wrong class; names without a partner are taken for other words.

    Args:
        found: names of the source, in the order of its labels.
        expected: names of the head, in the order of its classes.
        name: of the source in messages.

    Returns:
        The number that each class of the source has in `expected`, for `Relabelled`.

    Raises:
        InputError: the lists differ in length, or share only some names and disagree
            on the numbers of these.

    Examples:
        >>> renumbering(["sad", "sea_lake"], ["Sea Lake", "sad"], "faces")
        [1, 0]
    """
    if len(found) != len(expected):
        raise errors.InputError(
            "E305",
            f"{len(found)} classes",
            where=name,
            expected=str(len(expected)),
            remedy="is this the right data set and head profile?",
        )
    if [*map(_words, found)] == [*map(_words, expected)]:
        return list(range(len(found)))
    partners = _partners(found, expected)
    if len(partners) == len(found):
        return [partners[i] for i in range(len(found))]
    moved = [
        f"{found[i]!r} is {i} there, {j} here"
        for i, j in sorted(partners.items())
        if i != j
    ]
    if moved:
        raise errors.InputError(
            "E310",
            "the classes are in another order than those of the head: "
            + "; ".join(moved[:5]),
            where=name,
            remedy="name them alike, or choose the other profile of prompts; in "
            "Python, `Relabelled` gives them other numbers",
        )
    return list(range(len(found)))


def doubts(
    found: Sequence[str], expected: Sequence[str], name: str
) -> Iterator[errors.Message]:
    """Warns where `renumbering` takes the order of a source on trust.

    Args:
        found: names of the source, in the order of its labels.
        expected: names of the head, in the order of its classes.
        name: of the source in messages.

    Yields:
        A warning if hardly a name of the two lists matches, so that nothing shows that
        they are in one order.

    Examples:
        >>> next(doubts(["o", "ki"], ["あ", "い"], "letters")).found[:47]
        '0 of 2 class names match those of the head, so '
    """
    if [*map(_words, found)] == [*map(_words, expected)]:
        return
    matched = len(_partners(found, expected))
    if 2 * matched < len(found):
        pairs = [
            f"{i} is {found[i]!r} there, {expected[i]!r} here"
            for i in range(min(3, len(found)))
        ]
        yield errors.Message(
            "W311",
            f"{matched} of {len(found)} class names match those of the head, so the "
            f"order of its labels is taken on trust: {'; '.join(pairs)}",
            where=name,
            remedy="compare them: in another order every accuracy would be wrong",
        )


def _partners(found, expected):
    """Maps the classes that only one class of the other list can be."""
    left, right = [*map(_words, found)], [*map(_words, expected)]
    partners = {}
    for alike in (_share, _extend):
        rows = [i for i in range(len(left)) if i not in partners]
        cols = [j for j in range(len(right)) if j not in partners.values()]
        pairs = [(i, j) for i in rows for j in cols if alike(left[i], right[j])]
        for i, j in pairs:
            if sum(i == k or j == m for k, m in pairs) == 1:
                partners[i] = j
    return partners


def _share(one, two):
    """Tells whether two classes have a word in common."""
    return bool(one & two)


def _extend(one, two):
    """Tells whether a word of one class begins one of the other."""
    return any(
        min(len(a), len(b)) >= _SHORTEST and (a.startswith(b) or b.startswith(a))
        for a in one
        for b in two
    )


def _words(name):
    """Returns the letters and digits of a class name, or of each of several."""
    several = re.fullmatch(r"\[(.*)\]", name)
    parts = several[1].split(",") if several else [name]
    return {plain(part) for part in parts}


_SHORTEST = 4  # letters of a word that may begin another
