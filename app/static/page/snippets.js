// The request behind what is shown, as code that works when it is pasted.

const INLINE_TEXTS = 20; // more are read from a file that the page offers
const INLINE_CHARACTERS = 4000;
const VARIABLE = "EMBED_API_KEY";

export const inline = (body) =>
  body.input.length <= INLINE_TEXTS && JSON.stringify(body).length <= INLINE_CHARACTERS;

// JSON over lines, and as Python writes it.
const json = (value) => JSON.stringify(value, null, 4);
const python = (value) => json(value).replace(/^( +"\w+": )(true|false)/gm, (_, start, word) => start + { true: "True", false: "False" }[word]);
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const code = (...lines) => lines.filter((line) => line || line === "").join("\n");

// `kind` of curl, requests, ollama, openai; `keyed`: with a key, which is read from the environment.
export function snippet(kind, { origin, body, keyed, model, pooling }) {
  const whole = inline(body);
  const file = 'json.load(open("request.json", encoding="utf-8"))';
  const texts = `texts = ${whole ? python(body.input) : `${file}["input"]`}`;
  const dense = body.return_dense !== false;
  const library = code(!whole && "import json", keyed && "import os");
  const imports = (client) => `${library && `${library}\n\n`}${client}\n`;
  const bearer = `{"Authorization": f"Bearer {os.environ['${VARIABLE}']}"}`;
  const count = 'print(len(vectors), "vectors of", len(vectors[0]))';

  if (kind === "curl")
    return code(
      `curl ${shell(`${origin}/api/embed`)} \\`,
      "  -H 'Content-Type: application/json' \\",
      keyed && `  -H "Authorization: Bearer $${VARIABLE}" \\`,
      `  -d ${whole ? shell(JSON.stringify(body, null, 2)) : "@request.json"}`,
    );

  if (kind === "requests")
    return code(
      imports("import requests"),
      `body = ${whole ? python(body) : file}`,
      keyed && `headers = ${bearer}`,
      `answer = requests.post("${origin}/api/embed", json=body${keyed ? ", headers=headers" : ""})`,
      "answer.raise_for_status()",
      "found = answer.json()",
      dense && 'print(len(found["embeddings"]), "vectors of", len(found["embeddings"][0]))',
      body.return_sparse && 'print(found["sparse"][0])',
      body.return_colbert_vecs && 'print(len(found["colbert_vecs"][0]), "token vectors of the first text")',
    );

  const note =
    (!dense || body.return_sparse || body.return_colbert_vecs) &&
    "# This client knows dense vectors only; `requests` gets everything.";
  if (kind === "ollama")
    return code(
      note,
      body.pooling !== pooling &&
        `# This client cannot choose the pooling: it gets the server's, ${pooling}, not ${body.pooling}.`,
      imports("import ollama"),
      texts,
      `client = ollama.Client(host="${origin}"${keyed ? `, headers=${bearer}` : ""})`,
      `vectors = client.embed(model=${JSON.stringify(model)}, input=texts)["embeddings"]`,
      count,
    );
  return code(
    note,
    imports("from openai import OpenAI"),
    texts,
    `client = OpenAI(base_url="${origin}/v1", api_key=${keyed ? `os.environ["${VARIABLE}"]` : '"none"'})`,
    "answer = client.embeddings.create(",
    `    model=${JSON.stringify(model)}, input=texts, extra_body={"pooling": "${body.pooling}"}`,
    ")",
    "vectors = [found.embedding for found in answer.data]",
    count,
  );
}
