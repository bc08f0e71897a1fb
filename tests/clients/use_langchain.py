"""LangChain's standard tests of chat models, with ChatOpenAI pointed at the server at BASERT_URL.

Run by test_clients.py, in the clients' own environment. A test that wants wit of a small model may fail.
"""

from __future__ import annotations

import os
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

PARAMS: dict[str, Any] = {
    "model": os.environ["BASERT_MODEL"],
    "base_url": f"{os.environ['BASERT_URL']}/v1",
    "api_key": "none",
    "max_retries": 0,
    "temperature": 0,
    "frequency_penalty": 1.0,  # what repeats itself ends
    "stream_usage": True,
    "extra_body": {"parallel_tool_calls": False},  # a small model would go on calling
}
DETAILS = {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}
LONG = "Count from one to a hundred and twenty in words. " * 20


class TestChatOpenAI(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    chat_model_params = PARAMS
    standard_chat_model_params = PARAMS
    has_tool_choice = True
    supports_json_mode = True
    supports_anthropic_inputs = True
    model_override_value = PARAMS["model"]
    supported_usage_metadata_details = DETAILS

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """The second answer to a prompt: by then it is in the prefix cache."""
        model = ChatOpenAI(**PARAMS, max_tokens=4)
        model.invoke(LONG)
        answer = reduce(add, model.stream(LONG)) if stream else model.invoke(LONG)
        assert answer.usage_metadata["input_token_details"]["cache_read"] > 0
        return answer

    @pytest.mark.xfail(reason="the model is free not to call the tool, and a small one does not")
    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_agent_loop(self, model: ChatOpenAI) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason="any JSON will do; a small model misses the keys that it is asked for")
    def test_json_mode(self, model: ChatOpenAI) -> None:
        super().test_json_mode(model)
