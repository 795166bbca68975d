"""The questions, tools and schemas that every Python client is tested with.

Everything that a schema leaves open is bounded: a tiny model would fill a string for ever.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MODEL = "portico/demo"
QUESTION = "What is MLX?"
ANSWER = "MLX is an array framework for machine learning, made by Apple."
WEATHER_QUESTION = "What is the weather in Oslo?"
TOO_LONG = "word " * 5000  # the demo model's context is 4,096 tokens
OVERFLOW = "This model's maximum context length is 4096 tokens"
THINKING: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}


class Guest(BaseModel):
    """Somebody who stays."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=12)]
    nights: Annotated[int, Field(ge=1, le=30)]
    room: Literal["single", "double"]
    wishes: Annotated[list[Annotated[str, Field(max_length=8)]], Field(max_length=2)]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def tool(name: str, **parameters: dict[str, Any]) -> Any:
    schema = {
        "type": "object",
        "properties": parameters,
        "required": list(parameters),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": schema}}


WEATHER = tool("get_weather", city={"type": "string", "maxLength": 20})
ADD = tool(
    "add",
    a={"type": "integer", "minimum": 0, "maximum": 9999},
    b={"type": "integer", "minimum": 0, "maximum": 9999},
)
TIME = tool("get_time", timezone={"type": "string", "maxLength": 20})
TOOLS = [WEATHER, TIME, ADD]
