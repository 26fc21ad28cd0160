"""Holds the models that are served with their versions, and others when the file that lists them changes."""

import threading
from collections.abc import Sequence

from model.errors import ModelError
from model.serving.errors import RequestError, Status, invalid, note
from model.serving.options import Options, ServedModel
from model.serving.servable import LoadSettings, Version
from model.serving.store import Store


class Models:
    """Holds the models that are served.

    Args:
      models: each of another name.
      signature: the default signature.
      loading: what runs them.

    Attributes:
      stores: the versions, by the model's name.
    """

    def __init__(self, models: Sequence[ServedModel], signature: str, loading: LoadSettings | None = None) -> None:
        self._signature = signature
        self._loading = loading
        self._changing = threading.Lock()
        # Replaced as a whole, never changed: requests read it meanwhile.
        self.stores = {model.name: Store(model, signature, loading) for model in models}

    @classmethod
    def of(cls, options: Options) -> "Models":
        """Returns the models of a command line, to be loaded."""
        return cls(options.models, options.signature, LoadSettings(options.runtime, options.op_libraries))

    def load(self) -> None:
        """Loads what is there. Raises ModelError if a model has no version that can be loaded."""
        for store in self.stores.values():
            store.load()

    def refresh(self) -> None:
        """Looks for versions that appeared, changed or are gone."""
        with self._changing:
            for store in self.stores.values():
                store.refresh()

    def replace(self, models: Sequence[ServedModel]) -> None:
        """Serves these models and no others.

        A model that cannot be loaded stays as it was; a new one is left out. Versions that are loaded stay loaded.
        """
        with self._changing:
            stores = {}
            for model in models:
                before = self.stores.get(model.name)
                after = before if before and before.model == model else self._changed(model, before)
                if after is not None:
                    stores[model.name] = after
            for name in self.stores.keys() - stores.keys():
                note(f"model {name} is served no more")
            self.stores = stores

    def store(self, name: str) -> Store:
        """Returns the versions of a model. Raises RequestError if there is no model of that name."""
        store = self.stores.get(name)
        if store is None:
            raise RequestError(Status.NOT_FOUND, f"Could not find any versions of model {name}")
        return store

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Version:
        """Returns a version: the newest, or the one with that number or label.

        Raises:
          RequestError: there is none.
        """
        store = self.stores.get(name)
        if store is not None:
            return store.find(version, label)
        if label is not None:
            raise invalid(f"Unrecognized servable version label: {label}")
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        served = ", ".join(sorted(self.stores)[:20])
        raise RequestError(Status.NOT_FOUND, f"Servable not found for request: {wanted} (served: {served})")

    def _changed(self, model: ServedModel, before: Store | None) -> Store | None:
        store = Store(model, self._signature, self._loading)
        try:
            store.load(before)
        except (ModelError, OSError) as error:
            note(f"model {model.name} cannot be served as its config says: {error}")
            return before
        return store
