"""Loading the provider of the active model: the workers and the search API go by the same rules."""

import logging
from collections.abc import Callable

from db import providers
from db.providers import StoredModel
from embedder import Embedder, ModelError
from settings import Settings

log = logging.getLogger(__name__)


def provider_of(
    stored: StoredModel | None, settings: Settings, load: Callable[[Settings], Embedder]
) -> tuple[Embedder, Settings]:
    """The provider of the active model as it is stored, or of the settings if there is none yet; and the settings
    that it goes by. `load` makes a provider of settings, or has it at hand.

    Raises ModelError when its vectors are not like those that are stored.
    """
    chosen, said = providers.settings_for(settings, stored)
    if said is not None:
        log.warning("%s", said)
    provider = load(chosen)
    misfit = providers.misfit(stored, provider.model, provider.dimensions)
    if misfit is not None:
        raise ModelError(misfit)
    return provider, chosen
