"""Which settings make the provider of a stored model, and what is recorded of them."""

import pytest

from db.providers import StoredModel, recorded, settings_for, with_recorded
from settings import InvalidSetting, Settings

HASHING = Settings(embedding_provider="hashing")
MINILM = Settings(embedding_provider="minilm")
LARGE = Settings(embedding_provider="openai", openai_model="large", openai_api_key="sk-secret")


def stored(settings: Settings, *instead_of: Settings) -> StoredModel:
    return StoredModel("a-model", 384, recorded(settings), [recorded(each) for each in instead_of])


def test_a_provider_is_recorded_with_what_makes_its_model_and_without_secrets() -> None:
    assert recorded(HASHING) == {"EMBEDDING_PROVIDER": "hashing"}
    assert recorded(LARGE) == {
        "EMBEDDING_PROVIDER": "openai",
        "OPENAI_BASE_URL": "https://api.openai.com/v1",
        "OPENAI_MODEL": "large",
        "OPENAI_DIMENSIONS": "",
    }


@pytest.mark.parametrize("address", ["https://user:password@host/v1", "https://host/v1?key=secret"])
def test_an_address_that_may_hold_a_secret_is_not_recorded(address: str) -> None:
    chosen = Settings(embedding_provider="openai", openai_base_url=address)
    assert "OPENAI_BASE_URL" not in recorded(chosen)
    with pytest.raises(InvalidSetting, match="OPENAI_BASE_URL"):
        with_recorded(chosen, recorded(chosen))


def test_what_cannot_be_an_address_is_not_recorded() -> None:
    assert "OPENAI_BASE_URL" not in recorded(Settings(embedding_provider="openai", openai_base_url="http://[::1:80/v1"))


def test_the_key_is_that_of_the_process() -> None:
    chosen = with_recorded(Settings(openai_api_key="sk-mine"), recorded(LARGE))
    assert (chosen.embedding_provider, chosen.openai_model, chosen.openai_api_key) == ("openai", "large", "sk-mine")


def test_only_what_makes_a_provider_can_be_set() -> None:
    with pytest.raises(InvalidSetting, match=r"DATABASE_HOST does not make a provider: these do: EMBEDDING_PROVIDER"):
        with_recorded(HASHING, {"DATABASE_HOST": "elsewhere"})


@pytest.mark.parametrize(
    "found",
    [
        None,
        StoredModel("a-model", 384, None, [recorded(HASHING)]),
        stored(HASHING),
        stored(MINILM),
        stored(MINILM, LARGE),
    ],
    ids=["no model yet", "not recorded", "the same", "changed without the command", "never the settings' model"],
)
def test_the_settings_count(found: StoredModel | None) -> None:
    assert settings_for(HASHING, found) == (HASHING, None)


def test_the_command_wins_over_settings_from_before_it_and_says_what_to_set() -> None:
    chosen, said = settings_for(HASHING, stored(LARGE, HASHING))
    assert chosen.openai_model == "large"
    assert said is not None
    assert "EMBEDDING_PROVIDER=hashing of the settings does not count" in said
    assert "set EMBEDDING_PROVIDER=openai OPENAI_BASE_URL=https://api.openai.com/v1" in said
    assert settings_for(with_recorded(HASHING, recorded(LARGE)), stored(LARGE, HASHING))[1] is None


def test_another_model_of_the_same_provider_is_another_model() -> None:
    small = Settings(embedding_provider="openai", openai_model="small")
    assert settings_for(small, stored(LARGE))[0].openai_model == "small"
    assert settings_for(small, stored(LARGE, small))[0].openai_model == "large"
