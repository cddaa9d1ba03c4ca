// What an npm client makes of texts; run by test_client_libraries.py in the folder where it is installed.
// Arguments, stdin and stdout are those of client_libraries.py.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [name, url] = process.argv.slice(2);
const { texts, query } = JSON.parse(readFileSync(0, "utf-8"));
const installed = createRequire(`${process.cwd()}/`);
const model = "bge-m3";

const libraries = {
  async ollama() {
    const { Ollama } = installed("ollama");
    const client = new Ollama({ host: url });
    const found = await client.embed({ model, input: texts });
    const one = await client.embed({ model, input: query });
    return [found.embeddings, one.embeddings[0]];
  },
  async openai() {
    const { OpenAI } = installed("openai");
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
    const found = await client.embeddings.create({ model, input: texts });
    const one = await client.embeddings.create({ model, input: query });
    return [found.data.map((row) => row.embedding), one.data[0].embedding];
  },
};

console.log(JSON.stringify(await libraries[name]()));
