"""Values of options as text."""


def value_text(value: object) -> str:
    """A value of an option as text, a number with as many digits as tell it from every other: 1, 0.5, 0.10000001."""
    return repr(float(value)).removesuffix(".0") if isinstance(value, float) else str(value)
