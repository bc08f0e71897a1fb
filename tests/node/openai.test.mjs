// The official openai-node client, unchanged, against the server at BASERT_URL (see tests/sdk/test_openai_node.py).
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const { BASERT_URL, SENTENCE, BUSY_URL, BUSY_KEY, MAGIC_IDS } = process.env;
const client = new OpenAI({ baseURL: `${BASERT_URL}/v1`, apiKey: "none", maxRetries: 0 });
const busy = new OpenAI({ baseURL: `${BUSY_URL}/v1`, apiKey: BUSY_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const ask = { model: "tiny", messages, temperature: 0 };

test("chat", async () => {
  const answer = await client.chat.completions.create(ask);
  assert.equal(answer.choices[0].message.content, SENTENCE);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("stream, with usage in its last chunk", async () => {
  const stream = await client.chat.completions.create({
    ...ask,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), SENTENCE);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
});

test("the stream helper assembles the same answer", async () => {
  const answer = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.equal(answer.choices[0].message.content, SENTENCE);
});

test("n, stop, seed and logprobs", async () => {
  const three = await client.chat.completions.create({ ...ask, n: 3 });
  assert.deepEqual(three.choices.map((choice) => choice.index), [0, 1, 2]);
  const stopped = await client.chat.completions.create({ ...ask, stop: "world" });
  assert.equal(stopped.choices[0].message.content, SENTENCE.slice(0, SENTENCE.indexOf("world")));
  const logit_bias = Object.fromEntries(MAGIC_IDS.split(",").map((id) => [id, -100]));
  const drawn = { ...ask, model: "dice", temperature: 1, max_tokens: 20, seed: 7, logit_bias };
  const [first, again] = [await client.chat.completions.create(drawn), await client.chat.completions.create(drawn)];
  assert.equal(first.choices[0].message.content, again.choices[0].message.content);
  const scored = await client.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 });
  assert.equal(scored.choices[0].logprobs.content[0].top_logprobs.length, 2);
});

test("completions with several prompts", async () => {
  const answer = await client.completions.create({ model: "tiny", prompt: ["hello", "the user"], temperature: 0, max_tokens: 64 });
  assert.deepEqual(answer.choices.map((choice) => [choice.index, choice.text]), [[0, SENTENCE], [1, SENTENCE]]);
});

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids.sort(), ["dice", "tiny"]);
  assert.equal((await client.models.retrieve("tiny")).id, "tiny");
});

test("errors are the client's own classes", async () => {
  await assert.rejects(client.chat.completions.create({ ...ask, temperature: 9 }), OpenAI.BadRequestError);
  await assert.rejects(client.chat.completions.create({ ...ask, model: "none" }), OpenAI.NotFoundError);
  const stranger = new OpenAI({ baseURL: `${BUSY_URL}/v1`, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test("a full queue is a RateLimitError; an aborted stream frees its slot", async () => {
  const long = { model: "slow", prompt: "hello", max_tokens: 19000, ignore_eos: true };
  const stream = await busy.completions.create({ ...long, stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  await chunks.next();
  await assert.rejects(busy.completions.create(long), OpenAI.RateLimitError);
  const patient = new OpenAI({ baseURL: `${BUSY_URL}/v1`, apiKey: BUSY_KEY, maxRetries: 5 });
  stream.controller.abort();
  await patient.completions.create({ ...long, max_tokens: 1 });
});
