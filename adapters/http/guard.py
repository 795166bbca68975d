"""What a setting forbids."""

from collections.abc import Callable


class NotAllowed(Exception):
    """A setting forbids it, to all or to this key."""


def pulls_allowed(allowed: bool) -> Callable[[], None]:
    """A route dependency for what changes the models on the disk. Raises NotAllowed."""

    def check() -> None:
        if not allowed:
            raise NotAllowed(
                "This server neither downloads nor deletes models: `allow_pulls` is false, as it "
                "is by itself where other machines can reach the server."
            )

    return check
