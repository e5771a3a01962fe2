"""The type that does not show itself."""

import copy
import json
import pickle

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from chassis.secrets import Secret, SecretError, SecretVersion


def test_a_secret_is_masked_wherever_it_is_printed():
    """repr, str, format, f-strings, containers; reveal alone gives it out."""
    secret = Secret("hunter2")
    printed = "%s " % secret  # noqa: UP031 - one of the ways to print
    printed += f"{secret!r} {secret} {secret:>20} {[secret]} {secret!s}"
    assert "hunter2" not in printed
    assert secret.reveal() == "hunter2"
    assert "hunter2" not in repr(SecretVersion(values={"": secret}, version="1"))


def test_secrets_are_equal_when_their_texts_are():
    """And to nothing else, so that a text cannot be guessed by comparison by mistake."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("ü") == Secret("ü")
    assert not Secret("")
    assert Secret("x")


def test_a_secret_is_not_pickled_and_a_copy_is_itself():
    """It leaves the process only where somebody asked for that."""
    secret = Secret("hunter2")
    with pytest.raises(TypeError, match="reveal"):
        pickle.dumps(secret)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_a_secret_is_a_field_of_pydantic_models():
    """From a text or a Secret; dumped masked, in Python and JSON; described as a password."""

    class Model(BaseModel):
        password: Secret

    model = Model(password="hunter2")
    assert model.password.reveal() == "hunter2"
    assert Model(password=Secret("x")).password == Secret("x")
    assert "hunter2" not in model.model_dump_json() + repr(model) + str(model.model_dump())
    assert json.loads(model.model_dump_json()) == {"password": "**********"}
    assert Model.model_json_schema()["properties"]["password"]["format"] == "password"
    with pytest.raises(ValidationError, match="must be a text"):
        TypeAdapter(Secret).validate_python(3)


def test_an_error_says_whether_trying_again_may_help():
    """``permanent`` is told by whoever raises it."""
    assert SecretError("x", permanent=True).permanent
    assert not SecretError("x", permanent=False).permanent
