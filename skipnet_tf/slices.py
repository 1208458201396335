"""Slices of splits in TFDS's notation, and a shard's part of them.

A piece is `(name, first, count)`: `count` examples of a split or a file, from
number `first` on. A shard is `(index, of how many)`.
"""

from skipnet_tf import files
from skipnet_tf.files import expect


def resolve(split: str, known) -> list[tuple[str, int, int]]:
    """The pieces that a split names; `known` is TFDS's `SplitDict`."""
    import tensorflow_datasets as tfds

    try:
        slices = tfds.core.ReadInstruction.from_spec(split).to_absolute(known)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"`split` expected one of {sorted(known)}, or slices and sums of "
            f"them ({error}). Received: split={split!r}"
        ) from error
    pieces = []
    for part in slices:
        numbers = range(known[part.splitname].num_examples)
        numbers = numbers[part.from_ : part.to]
        pieces.append((part.splitname, numbers.start, len(numbers)))
    return pieces


def splits_of(sizes: dict[str, int]):
    """TFDS's `SplitDict` of splits of so many examples."""
    import tensorflow_datasets as tfds

    return tfds.core.SplitDict(
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[size],
            num_bytes=0,
            filename_template=None,
        )
        for name, size in sizes.items()
    )


def total(pieces: list[tuple[str, int, int]]) -> int:
    """Examples of all pieces."""
    return sum(count for _, _, count in pieces)


def share(pieces: list, shard: tuple[int, int], split: str) -> list:
    """A shard's part of all pieces; shards differ by one example at most."""
    index, shards = shard
    # Of the sum as a whole: what each summand has left over would add up.
    each, left = divmod(total(pieces), shards)
    first = index * each + min(index, left)
    own = files.cut(pieces, first, first + each + (index < left))
    expect(own, "`split` expected a slice that is not empty", split)
    return own


def select(split: str, members: dict[str, list]) -> list:
    """What the split holds of `members`, a list for each split."""
    sizes = {name: len(of_split) for name, of_split in members.items()}
    return [
        member
        for name, first, count in resolve(split, splits_of(sizes))
        for member in members[name][first : first + count]
    ]


def strided(chosen: list, shard: tuple[int, int], split: str) -> list:
    """A shard's part of a list that is sorted by class."""
    # Strided, so that every shard gets every class.
    own = chosen[shard[0] :: shard[1]]
    expect(own, "`split` expected a slice that is not empty", split)
    return own
