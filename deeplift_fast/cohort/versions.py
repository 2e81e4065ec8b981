"""Files of which another version stands in while they are written; see `Store.replace`."""

from collections.abc import Callable

from deeplift_fast.cohort.store_protocol import Store


def whole_version[Parsed](
    store: Store, name: str, most: int, parse: Callable[[bytes], Parsed], repair: bool = False
) -> Parsed | None:
    """What a file holds, or its other version where its own writing was cut short.

    Args:
        store: the folder.
        name: a file that `Store.replace` wrote.
        most: bytes that it may have.
        parse: makes something of its content, or raises ValueError.
        repair: whether to write the file anew where it is the other version that is whole, so that one version is
            always whole, also when that one is written over next.

    Returns:
        What `parse` gave; `None` where the file is not there, or its first writing was cut short.

    Raises:
        ValueError: as `parse` does, for the file itself.
        CohortError: if it cannot be read.
    """
    wrong = None
    for place, content in enumerate(store.versions(name, most)):
        if content is None:
            continue
        try:
            found = parse(content)
        except ValueError as error:
            wrong = error if place == 0 else wrong
            continue
        if place > 0 and repair:
            store.write(name, content)
        return found
    if wrong is not None:
        raise wrong
    return None
