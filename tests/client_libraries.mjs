// What an npm client makes of texts; run by test_client_libraries.py in the folder where it is installed.
// Arguments, stdin and stdout are those of client_libraries.py; a model that is given is one that is not
// served, and then what the client says of it comes on stdout.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [name, url] = process.argv.slice(2);
const { texts, query, documents, top, model: nobody } = JSON.parse(readFileSync(0, "utf-8"));
const installed = createRequire(`${process.cwd()}/`);
const model = nobody ?? "multilingual-e5-small";
const apiKey = "none";

const cohere = (client) => new (installed("cohere-ai")[client])({ token: apiKey, baseUrl: url });

const ai = async (embedder) => {
  const { embed, embedMany } = installed("ai");
  const found = await embedMany({ model: embedder, values: texts, maxRetries: 0 });
  return [found.embeddings, (await embed({ model: embedder, value: query })).embedding];
};

const aiCohere = () => installed("@ai-sdk/cohere").createCohere({ baseURL: `${url}/v2`, apiKey });

const langchain = async (embedder) => [
  await embedder.embedDocuments(texts),
  await embedder.embedQuery(query),
];

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
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });
    const found = await client.embeddings.create({ model, input: texts });
    const one = await client.embeddings.create({ model, input: query });
    return [found.data.map((row) => row.embedding), one.data[0].embedding];
  },
  async cohere_v1() {
    const client = cohere("CohereClient");
    const found = await client.embed({ model, texts, inputType: "search_document" });
    const one = await client.embed({ model, texts: [query], inputType: "search_query" });
    return [found.embeddings, one.embeddings[0]];
  },
  async cohere_v2() {
    const client = cohere("CohereClientV2");
    const rest = { model, embeddingTypes: ["float"] };
    const found = await client.embed({ texts, inputType: "search_document", ...rest });
    const one = await client.embed({ texts: [query], inputType: "search_query", ...rest });
    return [found.embeddings.float, one.embeddings.float[0]];
  },
  async cohere_v2_rerank() {
    const found = await cohere("CohereClientV2").rerank({ model, query, documents, topN: top });
    return found.results.map((row) => [row.index, row.relevanceScore]);
  },
  ai_cohere: () => ai(aiCohere().embedding(model)),
  async ai_cohere_rerank() {
    const { rerank } = installed("ai");
    const asked = { model: aiCohere().reranking(model), query, documents, topN: top, maxRetries: 0 };
    return (await rerank(asked)).ranking.map((row) => [row.originalIndex, row.score]);
  },
  ai_openai() {
    const { createOpenAI } = installed("@ai-sdk/openai");
    return ai(createOpenAI({ baseURL: `${url}/v1`, apiKey }).embedding(model));
  },
  ai_openai_compatible() {
    const { createOpenAICompatible } = installed("@ai-sdk/openai-compatible");
    return ai(createOpenAICompatible({ name: "ours", baseURL: `${url}/v1`, apiKey }).embeddingModel(model));
  },
  langchain_ollama() {
    const { OllamaEmbeddings } = installed("@langchain/ollama");
    return langchain(new OllamaEmbeddings({ model, baseUrl: url, maxRetries: 0 }));
  },
  langchain_openai() {
    const { OpenAIEmbeddings } = installed("@langchain/openai");
    const options = { model, apiKey, configuration: { baseURL: `${url}/v1` }, stripNewLines: false };
    return langchain(new OpenAIEmbeddings({ ...options, maxRetries: 0 }));
  },
  langchain_cohere() {
    const { CohereEmbeddings } = installed("@langchain/cohere");
    return langchain(new CohereEmbeddings({ model, client: cohere("CohereClient") }));
  },
  async langchain_cohere_rerank() {
    const { CohereRerank } = installed("@langchain/cohere");
    const reranker = new CohereRerank({ model, client: cohere("CohereClient"), topN: top });
    const found = await reranker.rerank(documents, query);
    return found.map((row) => [row.index, row.relevanceScore]);
  },
};

try {
  console.log(JSON.stringify(await libraries[name]()));
} catch (error) {
  if (!nobody) throw error;
  console.log(JSON.stringify(error.message));
}
