// The questions, tools and schemas that every JavaScript client is tested with.
// Everything that a schema leaves open is bounded: a tiny model would fill a string for ever.

import assert from "node:assert/strict";
import { z } from "zod";

export const BASE_URL = process.env.PORTICO_BASE_URL;
assert.ok(BASE_URL, "PORTICO_BASE_URL names the server, as in http://127.0.0.1:8000/v1");

export const MODEL = "portico/demo";
export const QUESTION = "What is MLX?";
export const ANSWER = "MLX is an array framework for machine learning, made by Apple.";
export const WEATHER_QUESTION = "What is the weather in Oslo?";
export const TOO_LONG = "word ".repeat(5000); // the demo model's context is 4,096 tokens
export const OVERFLOW = /This model's maximum context length is 4096 tokens/;
export const THINKING = { chat_template_kwargs: { enable_thinking: true } };

export const Guest = z.object({
  name: z.string().max(12),
  nights: z.int().min(1).max(30),
  room: z.enum(["single", "double"]),
  wishes: z.array(z.string().max(8)).max(2),
});
export const City = z.object({ city: z.string().max(20) });
export const Sum = z.object({ a: z.int().min(0).max(9999), b: z.int().min(0).max(9999) });
