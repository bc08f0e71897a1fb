// The official openai-node client, unchanged, against the speech model at BASERT_URL, with the recording SPEECH
// (see tests/sdk/test_transcriptions.py).
import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.BASERT_URL}/v1`, apiKey: "none", maxRetries: 0 });
const model = "tiny-speech";
const file = () => fs.createReadStream(process.env.SPEECH);

test("words and segments", async () => {
  const answer = await client.audio.transcriptions.create({
    model,
    file: file(),
    response_format: "verbose_json",
    timestamp_granularities: ["word", "segment"],
    chunking_strategy: { type: "server_vad", threshold: 0.4 },
  });
  assert.equal(answer.segments.map((one) => one.text).join("").trim(), answer.text);
  assert.equal(answer.words.map((one) => one.word).join(" "), answer.text);
  assert.equal(answer.usage.type, "duration");
});

test("a stream", async () => {
  let text = "";
  for await (const event of await client.audio.transcriptions.create({ model, file: file(), stream: true })) {
    if (event.type === "transcript.text.delta") text += event.delta;
    else assert.equal(event.text, text);
  }
  assert.notEqual(text, "");
});

test("subtitles and refusals", async () => {
  const subtitles = await client.audio.translations.create({ model, file: file(), response_format: "srt" });
  assert.match(subtitles, /^1\n00:00:00,\d{3} --> /);
  const broken = await OpenAI.toFile(Buffer.from("no sound"), "speech.mp3");
  await assert.rejects(client.audio.transcriptions.create({ model, file: broken }), OpenAI.BadRequestError);
});
