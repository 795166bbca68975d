// The official JavaScript client.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import OpenAI from "openai";
import { LengthFinishReasonError } from "openai/error";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";

import {
  ANSWER,
  BASE_URL,
  City,
  Guest,
  MODEL,
  OVERFLOW,
  QUESTION,
  Sum,
  THINKING,
  TOO_LONG,
  WEATHER_QUESTION,
} from "./shared.js";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: "x", maxRetries: 0 });
const tools = [
  zodFunction({ name: "get_weather", parameters: City }),
  zodFunction({ name: "add", parameters: Sum }),
];
const forcedTools = ["required", { type: "function", function: { name: "add" } }];

const body = (text, more = {}) => ({
  model: MODEL,
  messages: [{ role: "user", content: text }],
  temperature: 0,
  max_tokens: 200,
  ...more,
});
const ask = (text, more) => client.chat.completions.create(body(text, more));

describe("openai-node, chat", () => {
  test("a question is answered", async () => {
    const answer = await ask(QUESTION);
    assert.equal(answer.choices[0].message.content, ANSWER);
    assert.equal(answer.choices[0].finish_reason, "stop");
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
    assert.equal(total_tokens, prompt_tokens + completion_tokens);
    assert.ok(answer._request_id);
  });

  test("a stream says the same", async () => {
    let text = "";
    let usage;
    const stream = await ask(QUESTION, { stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, ANSWER);
    assert.deepEqual(usage, (await ask(QUESTION)).usage);
  });

  test("the stream helper puts the answer together", async () => {
    const stream = client.chat.completions.stream(body(QUESTION, { logprobs: true }));
    let text = "";
    stream.on("content", (delta) => {
      text += delta;
    });
    const final = await stream.finalChatCompletion();
    assert.equal(text, ANSWER);
    assert.equal(final.choices[0].message.content, ANSWER);
    assert.equal(final.choices[0].message.role, "assistant");
    const tokens = final.choices[0].logprobs.content.flatMap((entry) => entry.bytes);
    assert.equal(Buffer.from(tokens).toString(), ANSWER);
  });

  test("the stream helper takes several choices", async () => {
    const stream = client.chat.completions.stream(body(QUESTION, { n: 3 }));
    const final = await stream.finalChatCompletion();
    const texts = final.choices.map((choice) => choice.message.content);
    assert.deepEqual(texts, [ANSWER, ANSWER, ANSWER]);
  });

  test("a stream may be aborted, and the server goes on", async () => {
    const stream = await ask(QUESTION, { stream: true });
    for await (const chunk of stream) {
      assert.equal(chunk.choices[0].delta.role, "assistant");
      break;
    }
    assert.ok(stream.controller.signal.aborted);
    assert.equal((await ask(QUESTION)).choices[0].message.content, ANSWER);
  });

  test("thoughts come apart from the answer", async () => {
    const { message } = (await ask(QUESTION, THINKING)).choices[0];
    assert.ok(message.reasoning_content);
    assert.equal(message.content, ANSWER);
  });

  test("a text is continued, and several at once", async () => {
    const options = { model: MODEL, temperature: 0, max_tokens: 8 };
    const one = await client.completions.create({ ...options, prompt: "Portico is" });
    assert.ok(one.choices[0].text);
    const two = await client.completions.create({ ...options, prompt: ["Portico is", "MLX is"] });
    assert.deepEqual(two.choices.map((choice) => choice.index), [0, 1]);
    assert.equal(two.choices[0].text, one.choices[0].text);
  });

  test("models are listed, and retrieved with a slash in their name", async () => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, [MODEL]);
    assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
  });
});

describe("openai-node, tools", () => {
  test("the tool runner calls the tool and gets to an answer", async () => {
    const asked = [];
    const runner = client.chat.completions.runTools(
      body(WEATHER_QUESTION, {
        tools: [
          zodFunction({
            name: "get_weather",
            parameters: City,
            function: (args) => {
              asked.push(args);
              return "7 degrees";
            },
          }),
        ],
      }),
    );
    assert.match(await runner.finalContent(), /7 degrees/);
    assert.deepEqual(asked, [{ city: "Oslo" }]);
  });

  test("the streaming tool runner does so as well", async () => {
    const asked = [];
    const runner = client.chat.completions.runTools(
      body(WEATHER_QUESTION, {
        stream: true,
        tools: [
          zodFunction({
            name: "get_weather",
            parameters: City,
            function: (args) => {
              asked.push(args);
              return "7 degrees";
            },
          }),
        ],
      }),
    );
    assert.match(await runner.finalContent(), /7 degrees/);
    assert.deepEqual(asked, [{ city: "Oslo" }]);
  });

  for (const tool_choice of forcedTools) {
    test(`a tool is called when it must be: ${JSON.stringify(tool_choice)}`, async () => {
      const answer = await client.chat.completions.parse(body("Hello", { tools, tool_choice }));
      const calls = answer.choices[0].message.tool_calls;
      assert.ok(calls.length > 0);
      for (const call of calls) {
        const shape = { get_weather: City, add: Sum }[call.function.name];
        shape.parse(call.function.parsed_arguments);
        if (tool_choice !== "required") assert.equal(call.function.name, "add");
      }
    });
  }
});

describe("openai-node, structured output", () => {
  const response_format = zodResponseFormat(Guest, "guest");

  test("an answer is parsed with zod", async () => {
    const answer = await client.chat.completions.parse(body(QUESTION, { response_format }));
    Guest.parse(answer.choices[0].message.parsed);
    assert.equal(answer.choices[0].finish_reason, "stop");
  });

  test("a streamed answer is parsed with zod", async () => {
    const stream = client.chat.completions.stream(body(QUESTION, { response_format }));
    Guest.parse((await stream.finalChatCompletion()).choices[0].message.parsed);
  });

  test("JSON that the limit cut off is an error of its own", async () => {
    const parsing = client.chat.completions.parse(
      body(QUESTION, { response_format, max_tokens: 3 }),
    );
    await assert.rejects(parsing, LengthFinishReasonError);
  });
});

describe("openai-node, errors", () => {
  test("a bad request names its parameter", async () => {
    await assert.rejects(ask(QUESTION, { temperature: 9 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, "temperature");
      assert.equal(error.type, "invalid_request_error");
      assert.ok(error.requestID);
      return true;
    });
  });

  for (const stream of [false, true]) {
    test(`a prompt beyond the context is a bad request (stream: ${stream})`, async () => {
      await assert.rejects(ask(TOO_LONG, { stream }), (error) => {
        assert.ok(error instanceof OpenAI.BadRequestError);
        assert.equal(error.code, "context_length_exceeded");
        assert.match(error.message, OVERFLOW);
        return true;
      });
    });
  }

  test("what is not there is not found", async () => {
    await assert.rejects(ask(QUESTION, { model: "no/such" }), OpenAI.NotFoundError);
    await assert.rejects(client.models.retrieve("no/such"), OpenAI.NotFoundError);
  });
});
