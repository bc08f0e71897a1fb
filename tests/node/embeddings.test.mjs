// The official openai-node client, unchanged, against the encoders at BASERT_URL (see tests/sdk/test_encoders.py).
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.BASERT_URL}/v1`, apiKey: "none", maxRetries: 0 });
const input = ["hello", "the user", "wizards jump"];

test("embeddings, as base64 that the client reads, and as numbers", async () => {
  const read = await client.embeddings.create({ model: "encoder", input });
  const numbers = await client.embeddings.create({ model: "encoder", input, encoding_format: "float" });
  assert.deepEqual(read.data.map((one) => one.index), [0, 1, 2]);
  for (const [i, one] of read.data.entries()) {
    assert.equal(one.embedding.length, 8);
    one.embedding.forEach((x, n) => assert.equal(Math.fround(x), Math.fround(numbers.data[i].embedding[n])));
    assert.ok(Math.abs(Math.hypot(...one.embedding) - 1) < 1e-5);
  }
  assert.equal(read.usage.prompt_tokens, read.usage.total_tokens);
});

test("dimensions and ids", async () => {
  const cut = await client.embeddings.create({ model: "encoder", input: [[40, 41], [42]], dimensions: 4 });
  assert.deepEqual(cut.data.map((one) => one.embedding.length), [4, 4]);
  assert.equal(cut.usage.prompt_tokens, 3);
});

test("refusals", async () => {
  await assert.rejects(client.embeddings.create({ model: "encoder", input: "" }), OpenAI.BadRequestError);
  await assert.rejects(client.embeddings.create({ model: "tiny", input }), /makes embeddings: encoder/);
});
