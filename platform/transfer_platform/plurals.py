"""Numbers of things in messages."""


def counted(number: int, singular: str, plural: str = "") -> str:
    """Returns a number with its noun; `plural` defaults to `singular` with an `s`.

    >>> counted(1, "image"), counted(0, "image"), counted(2, "entry", "entries")
    ('1 image', '0 images', '2 entries')
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
