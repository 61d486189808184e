"""Amounts as people read them."""


def size(count: int | None) -> str:
    """A number of bytes for people: `1.4 GB`; `?` if unknown."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
