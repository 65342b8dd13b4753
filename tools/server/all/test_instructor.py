"""instructor: objects by each of its modes."""

import anthropic
import instructor
import openai
import pytest
from instructor.core import InstructorRetryException
from pydantic import BaseModel, Field, field_validator

from serving import KEY

MIA = [{"role": "user", "content": "Write JSON for a person named Mia who is 34 years old."}]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class People(BaseModel):
    """One or two people."""

    # The demo writes lists as long as it may.
    people: list[Person] = Field(min_length=1, max_length=2)


def of_openai(server, mode):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)
    return instructor.from_openai(client, mode=mode)


CHAT = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON, instructor.Mode.TOOLS_STRICT]


@pytest.mark.parametrize("mode", CHAT)
def test_an_answer_is_an_object(server, model, mode):
    found = of_openai(server, mode).chat.completions.create(model=model, messages=MIA, response_model=Person, temperature=0)
    assert isinstance(found, Person)


def test_the_answer_beside_the_object(server, model):
    create = of_openai(server, instructor.Mode.TOOLS).chat.completions.create_with_completion
    person, answer = create(model=model, messages=MIA, response_model=Person, temperature=0)
    assert isinstance(person, Person) and answer.usage.completion_tokens > 5


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_an_object_streams(server, model, mode):
    create = of_openai(server, mode).chat.completions.create_partial
    parts = list(create(model=model, messages=MIA, response_model=Person, temperature=0))
    assert len(parts) > 1 and isinstance(parts[-1].name, str) and isinstance(parts[-1].age, int)


def test_a_list_of_objects(server, model):
    create = of_openai(server, instructor.Mode.TOOLS).chat.completions.create
    people = create(model=model, messages=MIA, response_model=People, temperature=0, max_tokens=300).people
    assert 1 <= len(people) <= 2 and all(isinstance(person, Person) for person in people)


@pytest.mark.parametrize("mode", [instructor.Mode.RESPONSES_TOOLS])
def test_a_response_is_an_object(server, model, mode):
    found = of_openai(server, mode).responses.create(model=model, input=MIA, response_model=Person, temperature=0)
    assert isinstance(found, Person)


@pytest.mark.parametrize("mode", [instructor.Mode.ANTHROPIC_TOOLS, instructor.Mode.ANTHROPIC_JSON])
def test_a_message_is_an_object(server, model, mode):
    client = instructor.from_anthropic(anthropic.Anthropic(base_url=server, api_key=KEY, max_retries=0), mode=mode)
    found = client.messages.create(model=model, messages=MIA, response_model=Person, max_tokens=200)
    assert isinstance(found, Person)


def test_what_does_not_hold_is_asked_again(server, model):
    create = of_openai(server, instructor.Mode.TOOLS).chat.completions.create

    class Nobody(Person):
        """A person whom no answer can be."""

        @field_validator("age")
        @classmethod
        def refuse(cls, age):
            raise ValueError("the age is wrong")

    with pytest.raises(InstructorRetryException) as error:
        create(model=model, messages=MIA, response_model=Nobody, max_retries=1, temperature=0, max_tokens=200)
    # The second request has the first's call and what was wrong with it, and is answered.
    assert error.value.n_attempts == 2


def test_a_refused_request_says_why(server, model):
    create = of_openai(server, instructor.Mode.TOOLS).chat.completions.create
    with pytest.raises(InstructorRetryException, match="temperature"):
        create(model=model, messages=MIA, response_model=Person, temperature=-1, max_retries=1)
