"""A server with the demo model for all tests, and clients of it, whose libraries only the tests that ask for them need."""

import pytest

from serving import KEY, served


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="session")
def chat(server):
    import openai

    return openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="session")
def claude(server):
    import anthropic

    return anthropic.Anthropic(base_url=server, api_key=KEY, max_retries=0)


@pytest.fixture(scope="session")
def model():
    return "demo"
