// The Vercel AI SDK with its provider for OpenAI-compatible servers.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  generateObject,
  generateText,
  Output,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";

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

const provider = createOpenAICompatible({
  name: "portico",
  baseURL: BASE_URL,
  apiKey: "x",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const common = { model: provider(MODEL), temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
const thinking = { providerOptions: { portico: THINKING } };
const forcedTools = ["required", { type: "tool", toolName: "add" }];

const weather = (asked) =>
  tool({
    inputSchema: City,
    execute: async (args) => {
      asked.push(args);
      return "7 degrees";
    },
  });

// streamText reports failures to onError instead of throwing them.
const collecting = (errors) => ({ onError: ({ error }) => errors.push(error) });

describe("AI SDK, text", () => {
  test("a question is answered with its usage", async () => {
    const answer = await generateText({ ...common, prompt: QUESTION });
    assert.equal(answer.text, ANSWER);
    assert.equal(answer.finishReason, "stop");
    assert.ok(answer.usage.inputTokens > 0);
    assert.equal(answer.usage.totalTokens, answer.usage.inputTokens + answer.usage.outputTokens);
    assert.equal(answer.reasoningText, undefined);
  });

  test("a stream says the same with the same usage", async () => {
    const errors = [];
    const stream = streamText({ ...common, ...collecting(errors), prompt: QUESTION });
    let text = "";
    for await (const part of stream.textStream) text += part;
    assert.deepEqual(errors, []);
    assert.equal(text, ANSWER);
    assert.equal(await stream.finishReason, "stop");
    const whole = await generateText({ ...common, prompt: QUESTION });
    assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
  });

  test("system messages and lists of parts are taken", async () => {
    const answer = await generateText({
      ...common,
      messages: [{ role: "user", content: [{ type: "text", text: QUESTION }] }],
    });
    assert.equal(answer.text, ANSWER);
    assert.ok((await generateText({ ...common, system: "Be brief.", prompt: QUESTION })).text);
  });

  test("thoughts come apart from the answer", async () => {
    const answer = await generateText({ ...common, ...thinking, prompt: QUESTION });
    assert.ok(answer.reasoningText);
    assert.equal(answer.text, ANSWER);
    assert.ok(answer.usage.outputTokenDetails.reasoningTokens > 0);
  });

  test("streamed thoughts come before the answer", async () => {
    const errors = [];
    const stream = streamText({ ...common, ...thinking, ...collecting(errors), prompt: QUESTION });
    const kinds = [];
    let thoughts = "";
    for await (const part of stream.fullStream) {
      if (part.type !== kinds.at(-1)) kinds.push(part.type);
      if (part.type === "reasoning-delta") thoughts += part.text;
    }
    assert.deepEqual(errors, []);
    const said = kinds.filter((kind) => kind.startsWith("reasoning") || kind.startsWith("text"));
    assert.deepEqual(said, [
      "reasoning-start",
      "reasoning-delta",
      "reasoning-end",
      "text-start",
      "text-delta",
      "text-end",
    ]);
    assert.equal(thoughts, await stream.reasoningText);
    assert.equal(await stream.text, ANSWER);
  });
});

describe("AI SDK, tools", () => {
  test("a tool is called and its result becomes an answer", async () => {
    const asked = [];
    const answer = await generateText({
      ...common,
      prompt: WEATHER_QUESTION,
      tools: { get_weather: weather(asked) },
      stopWhen: stepCountIs(3),
    });
    assert.deepEqual(asked, [{ city: "Oslo" }]);
    assert.match(answer.text, /7 degrees/);
    assert.deepEqual(answer.steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
  });

  test("a streamed tool is called and its result becomes an answer", async () => {
    const asked = [];
    const errors = [];
    const stream = streamText({
      ...common,
      ...collecting(errors),
      prompt: WEATHER_QUESTION,
      tools: { get_weather: weather(asked) },
      stopWhen: stepCountIs(3),
    });
    assert.match(await stream.text, /7 degrees/);
    assert.deepEqual(errors, []);
    assert.deepEqual(asked, [{ city: "Oslo" }]);
  });

  for (const toolChoice of forcedTools) {
    test(`a tool is called when it must be: ${JSON.stringify(toolChoice)}`, async () => {
      const tools = { get_weather: tool({ inputSchema: City }), add: tool({ inputSchema: Sum }) };
      const answer = await generateText({ ...common, prompt: "Hello", tools, toolChoice });
      assert.ok(answer.toolCalls.length > 0);
      for (const call of answer.toolCalls) {
        assert.ok(!call.invalid);
        tools[call.toolName].inputSchema.parse(call.input);
        if (toolChoice !== "required") assert.equal(call.toolName, "add");
      }
    });
  }
});

describe("AI SDK, objects", () => {
  test("an object is generated", async () => {
    Guest.parse((await generateObject({ ...common, schema: Guest, prompt: QUESTION })).object);
  });

  test("an object is streamed in parts", async () => {
    const errors = [];
    const stream = streamObject({
      ...common,
      ...collecting(errors),
      schema: Guest,
      prompt: QUESTION,
    });
    let parts = 0;
    for await (const part of stream.partialObjectStream) {
      assert.equal(typeof part, "object");
      parts += 1;
    }
    assert.deepEqual(errors, []);
    assert.ok(parts > 1);
    Guest.parse(await stream.object);
  });

  test("an object is the output of a text", async () => {
    const answer = await generateText({
      ...common,
      prompt: QUESTION,
      output: Output.object({ schema: Guest }),
    });
    Guest.parse(answer.output);
  });

  test("a choice is the output of a text", async () => {
    const answer = await generateText({
      ...common,
      prompt: QUESTION,
      output: Output.choice({ options: ["sunny", "rainy"] }),
    });
    assert.ok(["sunny", "rainy"].includes(answer.output));
  });
});

describe("AI SDK, errors", () => {
  test("a failure carries its status and its message", async () => {
    const asking = generateText({ ...common, prompt: TOO_LONG });
    await assert.rejects(asking, (error) => {
      assert.ok(APICallError.isInstance(error));
      assert.equal(error.statusCode, 400);
      assert.equal(error.isRetryable, false);
      assert.match(error.message, OVERFLOW);
      return true;
    });
  });

  test("an unknown model is not found", async () => {
    const asking = generateText({ ...common, model: provider("no/such"), prompt: QUESTION });
    await assert.rejects(asking, (error) => error.statusCode === 404);
  });

  test("a stream that is refused reports why", async () => {
    const errors = [];
    const stream = streamText({ ...common, ...collecting(errors), prompt: TOO_LONG });
    for await (const _part of stream.fullStream);
    assert.match(errors[0].message, OVERFLOW);
  });
});
