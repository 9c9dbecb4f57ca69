"""Output of a form, tool calls and how they stream, through openai-python."""

import json
import re

import jsonschema
import openai
import pydantic
import pytest

ASK = [{"role": "user", "content": "Tell me about Mia the fox as JSON."}]

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["fox", "cat"]},
        "friends": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "friends"],
    "additionalProperties": False,
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]


class Animal(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    legs: int = pydantic.Field(ge=0, le=8)


def chat(client, model, **options):
    return client.chat.completions.create(model=model, **{"messages": ASK, "max_tokens": 200, **options})


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "animal", "strict": True, "schema": schema}}


OTHERS = {
    "nested": {
        "type": "object",
        "properties": {
            "place": {"$ref": "#/$defs/place"},
            "others": {"type": "array", "items": {"$ref": "#/$defs/place"}, "minItems": 1, "maxItems": 2},
        },
        "required": ["place", "others"],
        "additionalProperties": False,
        "$defs": {
            "place": {
                "type": "object",
                "properties": {"x": {"type": "integer", "minimum": -9, "maximum": 9}, "open": {"type": "boolean"}},
                "required": ["x", "open"],
                "additionalProperties": False,
            }
        },
    },
    "either": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}, {"enum": [1, "two", False]}]},
    "patterns": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        "minItems": 2,
        "maxItems": 4,
    },
    "optional": {
        "type": "object",
        "properties": {"a": {"const": "tide"}, "b": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}},
        "required": ["a"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("schema", [SCHEMA, *OTHERS.values()], ids=["flat", *OTHERS])
def test_a_schema_is_kept_to(client, model, schema):
    """100 sampled replies, of 500 in all; one that would not fit its tokens would end with 'length'."""
    for first in range(0, 100, 25):
        reply = chat(
            client, model, n=25, seed=first, temperature=1.5, response_format=schema_format(schema), max_tokens=250
        )
        for choice in reply.choices:
            assert choice.finish_reason == "stop"
            jsonschema.validate(json.loads(choice.message.content), schema)


def test_parse_gives_an_object(client, model):
    reply = client.chat.completions.parse(model=model, messages=ASK, response_format=Animal, max_tokens=100)
    assert isinstance(reply.choices[0].message.parsed, Animal)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"response_format": {"type": "json_object"}, "stop": ["\n"]}, r"\{.*"),
        ({"extra_body": {"structured_outputs": {"regex": "[a-f]{4}-[0-9]"}}}, r"[a-f]{4}-[0-9]"),
        ({"extra_body": {"guided_choice": ["red", "green"]}}, r"red|green"),
        ({"extra_body": {"guided_grammar": 'start: "(" /[a-z]+/ ")"'}, "max_tokens": 40}, r"\([a-z]*\)?"),
    ],
)
def test_other_forms(client, model, options, pattern):
    said = chat(client, model, **{"max_tokens": 60, **options}).choices[0].message.content
    assert re.fullmatch(pattern, said, re.DOTALL), said


def test_completions_have_forms_too(client, model):
    body = {"structured_outputs": {"choice": ["yes", "no"]}}
    reply = client.completions.create(model=model, prompt="Is the sea wet?", max_tokens=10, extra_body=body)
    assert reply.choices[0].text in ("yes", "no")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"response_format": schema_format({"type": "object", "unevaluatedItems": False})}, "invalid_json_schema"),
        ({"response_format": schema_format({"$ref": "https://example.com/s.json"})}, "invalid_json_schema"),
        ({"extra_body": {"guided_regex": "("}}, "invalid_grammar"),
        ({"extra_body": {"guided_grammar": "start: nowhere"}}, "invalid_grammar"),
    ],
)
def test_a_form_that_cannot_be_used_is_refused(client, model, options, code):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, model, **options)
    assert caught.value.code == code


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_demanded_call_comes_well_formed(client, model, choice):
    reply = chat(client, model, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, seed=5)
    [call] = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls"
    assert call.id.startswith("call_") and call.type == "function"
    arguments = json.loads(call.function.arguments)
    if call.function.name == "add":
        assert set(arguments) == {"a", "b"}
    else:
        assert (call.function.name, arguments) == ("now", {})


def test_a_streamed_call_is_the_whole_one(client, model):
    options = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "seed": 5}
    whole = chat(client, model, **options).choices[0].message.tool_calls[0].function
    name, arguments, pieces, reason = "", "", 0, None
    for chunk in chat(client, model, stream=True, **options):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            name += call.function.name or ""
            arguments += call.function.arguments or ""
            pieces += 1
    assert (name, arguments) == (whole.name, whole.arguments)
    assert reason == "tool_calls" and pieces > 1


def test_a_conversation_with_calls_goes_on(client, model):
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    messages = [
        {"role": "user", "content": "What is 1 plus 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]
    reply = chat(client, model, messages=messages, tools=TOOLS, max_tokens=8)
    assert reply.usage.prompt_tokens > 20
