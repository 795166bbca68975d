"""A folder of kept states, for the tests of the prefix store."""

from pathlib import Path

from adapters.mlx.fingerprint import open_store
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.prefix_store import PrefixStore
from domain.models import ModelCard, ModelId
from tests.mlx.turns import SCOPE, Model

ROOM = 2**30


class Disk:
    """A prefix cache over a folder, started again and again. Its model is whatever it is said."""

    def __init__(self, root: Path, model: Model) -> None:
        self.root = root
        self.model = model
        self.location = root / "model"
        if not self.location.exists():
            self.location.mkdir(parents=True)
            (self.location / "config.json").write_text("{}")
            (self.location / "model.safetensors").write_bytes(b"weights")
        self.budget = ROOM
        self.revision = "1"
        self.opened: list[PrefixStore] = []

    def store(self) -> PrefixStore:
        self.close()
        card = ModelCard(ModelId.parse("some/model"), self.revision, self.location, 7, 512, 0)
        made = open_store(self.root / "kept", card, None, self.model.caches(), self.budget)
        assert made is not None
        self.opened = [made]
        return made

    def close(self) -> None:
        for store in self.opened:
            store.close()

    def cache(self) -> PrefixCache:
        return PrefixCache(ROOM, self.store())

    def keep(self, *prompts: list[int], scope: str = SCOPE) -> None:
        """States after these prompts, written and closed."""
        cache = self.cache()
        for tokens in prompts:
            caches = self.model.caches()
            self.model.read(caches, tokens)
            assert cache.keep(scope, tokens, caches)
        assert cache.flush(60)
        cache.close()

    @property
    def files(self) -> list[Path]:
        """All but what is there whatever is kept."""
        found = [file for file in (self.root / "kept").rglob("*") if file.is_file()]
        return sorted(file for file in found if file.name not in {"lock", "salt"})
