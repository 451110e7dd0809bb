// The everything server for both lines of the TypeScript SDK; see interop/README.md.
// ts1_server.mjs and ts2_server.mjs hand over what differs between the lines.

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";
const WAV = "UklGRgAAAABXQVZF";
const LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
const ITEMS = ["1", "12", "2"];
const TONES = ["harsh", "kind", "kindly"];

/** Declared when the server is made: the first line serves `logging/setLevel` only then. */
export const CAPABILITIES = { logging: {}, resources: { subscribe: true } };

// A client of this SDK drops the progress that it reads together with the answer.
const pause = () => new Promise((resolve) => setTimeout(resolve, 30));

const text = (value) => ({ content: [{ type: "text", text: value }] });

/**
 * Register everything.
 *
 * `line` holds: z, ResourceTemplate; shape(fields), the form of a schema; optional(complete), an optional
 * string with completion; asks(app, extra), which gives { token, meta, signal, notify, sample,
 * elicit, roots, ping, log, closeStream }; handle(server, method, handler) for requests the high-level server lacks.
 */
export function register(app, line) {
  const { z, ResourceTemplate } = line;
  const shape = (fields) => line.shape(fields);
  const state = { hanging: 0, cancelled: 0 };
  const subscribed = new Set();

  const tool = (name, description, fields, run, more = {}) =>
    app.registerTool(name, { description, inputSchema: shape(fields), ...more }, (args, extra) =>
      run(args, line.asks(app, extra)),
    );

  tool("add", "Add two integers.", { a: z.number().int(), b: z.number().int() }, ({ a, b }) =>
    text(String(a + b)),
  );
  tool("echo", "Return the text unchanged.", { text: z.string() }, (args) => text(args.text));
  tool("slow", "Report progress for each step.", { steps: z.number().int() }, async ({ steps }, ask) => {
    for (let step = 1; ask.token !== undefined && step <= steps; step++) {
      await ask.notify({
        method: "notifications/progress",
        params: { progressToken: ask.token, progress: step, total: steps, message: `step ${step}` },
      });
      await pause();
    }
    return text(`done ${steps}`);
  });
  tool("fail", "Always fail.", {}, () => {
    throw new Error("deliberate failure");
  });
  tool("image", "Return a picture.", {}, () => ({
    content: [{ type: "image", data: PNG, mimeType: "image/png" }],
  }));
  tool(
    "weather",
    "Return a record.",
    { city: z.string() },
    ({ city }) => {
      const record = { city, degrees: 21.5 };
      return { ...text(JSON.stringify(record)), structuredContent: record };
    },
    {
      title: "The weather",
      annotations: { readOnlyHint: true },
      icons: [{ src: "https://example.test/sun.png", mimeType: "image/png" }],
      outputSchema: shape({ city: z.string(), degrees: z.number() }),
    },
  );
  tool("media", "Return every kind of content that the SDK knows.", {}, () => ({
    content: [
      { type: "text", text: "media" },
      { type: "audio", data: WAV, mimeType: "audio/wav" },
      {
        type: "resource",
        resource: { uri: "interop://greeting", mimeType: "text/plain", text: "hello from the peer" },
      },
      { type: "resource_link", uri: "interop://blob", name: "blob" },
    ],
  }));
  tool("show_meta", "Return the request's _meta.", {}, (_, ask) => {
    const { progressToken, ...rest } = ask.meta ?? {};
    return text(JSON.stringify(rest));
  });
  tool("ask_model", "Ask the client's model.", { prompt: z.string() }, async ({ prompt }, ask) => {
    const answer = await ask.sample({
      messages: [{ role: "user", content: { type: "text", text: prompt } }],
      maxTokens: 50,
      systemPrompt: "be brief",
      temperature: 0.5,
      stopSequences: ["STOP"],
      modelPreferences: { hints: [{ name: "small" }], speedPriority: 0.9 },
    });
    return text(`${answer.role}|${answer.model}|${answer.content.text}`);
  });
  tool("list_my_roots", "List the client's roots.", {}, async (_, ask) => {
    const { roots } = await ask.roots();
    return text(JSON.stringify(roots.map((root) => [root.uri, root.name])));
  });
  tool("log_all_levels", "Log once at each level.", {}, async (_, ask) => {
    for (const level of LEVELS) await ask.log(level, `message at ${level}`, "interop");
    return text("logged");
  });
  tool("ping_client", "Ping the client.", {}, async (_, ask) => {
    await ask.ping();
    return text("pong");
  });
  tool("hang", "Wait until the request is cancelled.", {}, async (_, ask) => {
    state.hanging++;
    await new Promise((resolve) => ask.signal.addEventListener("abort", resolve));
    state.hanging--;
    state.cancelled++;
    return text("never");
  });
  tool("hang_state", "Say how many calls hang and how many were cancelled.", {}, () =>
    text(JSON.stringify(state)),
  );
  tool("grow", "Add a tool, a resource and a prompt and announce them.", {}, () => {
    // The SDK announces them by itself.
    tool("extra", "Came later.", {}, () => text("extra"));
    app.registerResource("extra", "interop://extra", { mimeType: "text/plain" }, (uri) => ({
      contents: [{ uri: uri.href, text: "extra" }],
    }));
    app.registerPrompt("extra", { description: "Came later." }, () => ({
      messages: [{ role: "user", content: { type: "text", text: "extra" } }],
    }));
    return text("grown");
  });
  tool(
    "touch",
    "Announce that a resource changed, to those who subscribed.",
    { uri: z.string() },
    async ({ uri }) => {
      if (!subscribed.has(uri)) return text("nobody subscribed");
      await app.server.sendResourceUpdated({ uri });
      return text("announced");
    },
  );
  tool("elicit", "Ask the client's user.", { question: z.string() }, async ({ question }, ask) => {
    const answer = await ask.elicit({
      message: question,
      requestedSchema: {
        type: "object",
        properties: { name: { type: "string" }, age: { type: "integer" } },
        required: ["name", "age"],
      },
    });
    return text(JSON.stringify([answer.action, answer.content ?? null]));
  });

  tool("elicit_url", "Send the client's user to a page.", { url: z.string() }, async ({ url }, ask) => {
    const answer = await ask.elicit({
      mode: "url",
      message: "please sign in",
      url,
      elicitationId: "visit-1",
    });
    await app.server.createElicitationCompletionNotifier("visit-1")();
    return text(answer.action);
  });
  tool("ask_with_tools", "Ask the client's model to use a tool.", {}, async (_, ask) => {
    const answer = await ask.sample({
      messages: [{ role: "user", content: { type: "text", text: "look it up" } }],
      maxTokens: 50,
      tools: [{ name: "lookup", inputSchema: { type: "object" } }],
      toolChoice: { mode: "required" },
    });
    const [block] = [answer.content].flat();
    return text(JSON.stringify([answer.stopReason, block.type, block.name, block.input]));
  });

  if (line.cuts) {
    tool("cut", "Close the stream of this request, then answer.", {}, (_, ask) => {
      ask.closeStream?.();
      return text("resumed");
    });
  }

  app.registerResource(
    "greeting",
    "interop://greeting",
    { description: "A text", mimeType: "text/plain" },
    (uri) => ({ contents: [{ uri: uri.href, mimeType: "text/plain", text: "hello from the peer" }] }),
  );
  app.registerResource(
    "blob",
    "interop://blob",
    { mimeType: "application/octet-stream" },
    (uri) => ({
      contents: [
        {
          uri: uri.href,
          mimeType: "application/octet-stream",
          blob: Buffer.from(Array.from({ length: 256 }, (_, i) => i)).toString("base64"),
        },
      ],
    }),
  );
  app.registerResource(
    "item",
    new ResourceTemplate("interop://item/{id}", {
      list: undefined,
      complete: { id: (value) => ITEMS.filter((item) => item.startsWith(value)) },
    }),
    { description: "One item", mimeType: "text/plain" },
    (uri, { id }) => ({ contents: [{ uri: uri.href, mimeType: "text/plain", text: `item ${id}` }] }),
  );
  app.registerPrompt(
    "review",
    {
      description: "Ask for a review.",
      argsSchema: shape({
        code: z.string(),
        tone: line.optional((value) => TONES.filter((tone) => tone.startsWith(value ?? ""))),
      }),
    },
    ({ code, tone }) => ({
      messages: [
        {
          role: "user",
          content: { type: "text", text: `Review this, be ${tone ?? "kind"}: ${code}` },
        },
      ],
    }),
  );

  line.handle(app.server, "resources/subscribe", (request) => {
    subscribed.add(request.params.uri);
    return {};
  });
  line.handle(app.server, "resources/unsubscribe", (request) => {
    subscribed.delete(request.params.uri);
    return {};
  });
}
