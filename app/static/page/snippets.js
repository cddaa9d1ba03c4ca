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

// `kind` of curl, requests, ollama, openai; `keyed`: with a key, which is read from the environment.
export function snippet(kind, { origin, body, keyed, model, pooling }) {
  const whole = inline(body);
  const texts = whole ? python(body.input) : 'json.load(open("request.json", encoding="utf-8"))["input"]';
  const dense = body.return_dense !== false && !body.return_sparse && !body.return_colbert_vecs;
  const imports = (...names) => names.filter(Boolean).map((name) => `import ${name}`).join("\n");
  const bearer = `{"Authorization": f"Bearer {os.environ['${VARIABLE}']}"}`;

  if (kind === "curl")
    return [
      `curl ${shell(`${origin}/api/embed`)} \\`,
      "  -H 'Content-Type: application/json' \\",
      keyed && `  -H "Authorization: Bearer $${VARIABLE}" \\`,
      `  -d ${whole ? shell(JSON.stringify(body, null, 2)) : "@request.json"}`,
    ]
      .filter(Boolean)
      .join("\n");

  if (kind === "requests")
    return [
      [imports(!whole && "json", keyed && "os"), "import requests"].filter(Boolean).join("\n\n"),
      "",
      `body = ${whole ? python(body) : 'json.load(open("request.json", encoding="utf-8"))'}`,
      keyed && `headers = ${bearer}`,
      `answer = requests.post("${origin}/api/embed", json=body${keyed ? ", headers=headers" : ""})`,
      "answer.raise_for_status()",
      "found = answer.json()",
      ...[
        dense || body.return_dense !== false ? 'print(len(found["embeddings"]), "vectors of", len(found["embeddings"][0]))' : null,
        body.return_sparse ? 'print(found["sparse"][0])' : null,
        body.return_colbert_vecs ? 'print(len(found["colbert_vecs"][0]), "token vectors of the first text")' : null,
      ],
    ]
      .filter((line) => line !== null && line !== false)
      .join("\n");

  const notes = [!dense && "# This client knows dense vectors only; `requests` gets everything."];
  if (kind === "ollama") {
    if (body.pooling !== pooling)
      notes.push(`# This client cannot choose the pooling: it gets the server's, ${pooling}, not ${body.pooling}.`);
    return [
      ...notes,
      [imports(!whole && "json", keyed && "os"), "import ollama"].filter(Boolean).join("\n\n"),
      "",
      `texts = ${texts}`,
      `client = ollama.Client(host="${origin}"${keyed ? `, headers=${bearer}` : ""})`,
      `vectors = client.embed(model=${JSON.stringify(model)}, input=texts)["embeddings"]`,
      'print(len(vectors), "vectors of", len(vectors[0]))',
    ]
      .filter((line) => line !== false)
      .join("\n");
  }
  const secret = keyed ? `os.environ["${VARIABLE}"]` : '"none"';
  return [
    ...notes,
    [imports(!whole && "json", keyed && "os"), "from openai import OpenAI"].filter(Boolean).join("\n\n"),
    "",
    `texts = ${texts}`,
    `client = OpenAI(base_url="${origin}/v1", api_key=${secret})`,
    `answer = client.embeddings.create(`,
    `    model=${JSON.stringify(model)}, input=texts, extra_body={"pooling": "${body.pooling}"}`,
    ")",
    "vectors = [found.embedding for found in answer.data]",
    'print(len(vectors), "vectors of", len(vectors[0]))',
  ]
    .filter((line) => line !== false)
    .join("\n");
}
