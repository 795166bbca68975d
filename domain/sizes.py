"""How bytes are written for people."""


def size(count: float) -> str:
    """As "2.9 MB" or "16.00 GB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004
