"""What scripted models answer to an endpoint's requests."""

import json


def says(text):
    return 200, {"role": "assistant", "content": text}


def calls(tool, arguments, number=1):
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return 200, {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call{number}", "type": "function", "function": function}],
    }


def last_text(body):
    return body["messages"][-1]["content"]
