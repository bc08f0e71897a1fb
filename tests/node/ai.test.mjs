// The AI SDK's openai-compatible provider, unchanged, against the server at BASERT_URL (see tests/clients/test_clients.py).
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const { BASERT_URL, BASERT_MODEL } = process.env;
const provider = createOpenAICompatible({
  name: "basert",
  baseURL: `${BASERT_URL}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const ask = { model: provider(BASERT_MODEL), prompt: "Name a colour, and a city.", temperature: 0, maxRetries: 0 };
const short = { ...ask, maxOutputTokens: 16, providerOptions: { basert: { ignore_eos: true } } }; // ours, passed through
const schema = z.object({
  colour: z.enum(["red", "green"]),
  cities: z.array(z.object({ name: z.string().max(20), large: z.boolean() })).min(1).max(2),
});
const parts = async (stream) => {
  const all = [];
  for await (const part of stream) all.push(part);
  return all;
};

test("generateText", async () => {
  const answer = await generateText(short);
  assert.ok(answer.text);
  assert.equal(answer.finishReason, "length");
  assert.equal(answer.usage.outputTokens, 16);
  assert.equal(answer.usage.totalTokens, answer.usage.inputTokens + 16);
  assert.equal(answer.response.modelId, BASERT_MODEL);
});

test("streamText says the same, with its usage", async () => {
  const answer = streamText(short);
  const pieces = await parts(answer.textStream);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(""), (await generateText(short)).text);
  assert.equal(await answer.finishReason, "length");
  assert.equal((await answer.usage).outputTokens, 16);
});

test("stop sequences and a seed", async () => {
  const whole = (await generateText(short)).text;
  const word = whole.trim().split(/\s+/)[2];
  const stopped = await generateText({ ...short, stopSequences: [word] });
  assert.equal(stopped.text, whole.slice(0, whole.indexOf(word)));
  assert.equal(stopped.finishReason, "stop");
  const drawn = { ...short, temperature: 1, seed: 7 };
  assert.equal((await generateText(drawn)).text, (await generateText(drawn)).text);
});

test("generateObject, by a zod schema", async () => {
  const { object, finishReason } = await generateObject({ ...ask, schema });
  assert.deepEqual(schema.parse(object), object);
  assert.equal(finishReason, "stop");
});

test("generateObject, one of an enum", async () => {
  const { object } = await generateObject({ ...ask, output: "enum", enum: ["red", "green"] });
  assert.ok(["red", "green"].includes(object));
});

test("streamObject grows to the whole", async () => {
  const answer = streamObject({ ...ask, schema });
  const partials = await parts(answer.partialObjectStream);
  assert.ok(partials.length > 3);
  assert.deepEqual(partials.at(-1), await answer.object);
  assert.deepEqual(partials.at(-1), (await generateObject({ ...ask, schema })).object);
});

const told = [];
const tools = {
  weather: tool({
    description: "The weather in a city",
    inputSchema: z.object({ city: z.string().max(20), unit: z.enum(["C", "F"]) }),
    execute: async (input) => {
      told.push(input);
      return { degrees: 21, unit: input.unit };
    },
  }),
};

test("a required tool is called, and its result goes into the next step", async () => {
  const answer = await generateText({
    ...ask,
    tools,
    toolChoice: "required",
    providerOptions: { basert: { parallel_tool_calls: false } },
    prepareStep: ({ stepNumber }) => (stepNumber ? { toolChoice: "none" } : {}),
    stopWhen: ({ steps }) => steps.length === 2,
    maxOutputTokens: 100,
  });
  const [first, second] = answer.steps;
  assert.equal(first.finishReason, "tool-calls");
  assert.deepEqual(first.toolCalls.map((call) => [call.toolName, call.invalid]), [["weather", undefined]]);
  assert.deepEqual(told.at(-1), first.toolCalls[0].input);
  assert.equal(first.toolResults[0].output.degrees, 21);
  assert.ok(second.text);
  assert.equal(second.toolCalls.length, 0);
});

test("a named tool's input is streamed", async () => {
  const answer = streamText({ ...ask, tools, toolChoice: { type: "tool", toolName: "weather" } });
  const all = await parts(answer.fullStream);
  const kinds = all.map((part) => part.type);
  assert.ok(kinds.includes("tool-input-start") && kinds.includes("tool-result"), kinds.join());
  const deltas = all.filter((part) => part.type === "tool-input-delta").map((part) => part.delta);
  assert.ok(deltas.length > 1);
  const call = all.find((part) => part.type === "tool-call");
  assert.deepEqual(JSON.parse(deltas.join("")), call.input);
});

test("errors are the SDK's own, with the server's words", async () => {
  const refused = { ...ask, model: provider("nothing") };
  await assert.rejects(generateText(refused), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.match(error.message, /nothing/);
    return !error.isRetryable;
  });
});
