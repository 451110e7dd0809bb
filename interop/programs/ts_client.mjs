// The everything client for both lines of the TypeScript SDK; see interop/README.md.
// ts1_client.mjs and ts2_client.mjs hand over what differs between the lines.

export const CAPABILITIES = {
  sampling: { tools: {} },
  elicitation: { form: {}, url: {} },
  roots: { listChanged: true },
};

/** Split `[--mode X] [--revision DATE] COMMAND ARGUMENT...` into its parts. */
export function options(argv) {
  const found = { mode: "legacy", revision: undefined, command: [...argv] };
  while (found.command[0]?.startsWith("--")) {
    const [name, value] = found.command.splice(0, 2);
    found[name.slice(2)] = value;
  }
  return found;
}

/**
 * Use every shared feature and print one JSON document of what was seen.
 *
 * `line` holds: sdk; client, not yet connected; connect(); version(); transport(), once connected;
 * on(method, handler) for requests;
 * note(method, handler) for notifications; call(params, options).
 */
export async function run(line) {
  const { client } = line;
  const seen = {
    sdk: line.sdk,
    logs: [],
    samplingRequests: [],
    elicitRequests: [],
    rootsServed: 0,
    toolsChanged: 0,
    resourcesChanged: 0,
    promptsChanged: 0,
    elicitationsCompleted: [],
    resourcesUpdated: [],
    progress: [],
  };

  line.on("sampling/createMessage", (request) => {
    seen.samplingRequests.push(request.params);
    if (request.params.tools) {
      const [{ name }] = request.params.tools;
      return {
        role: "assistant",
        content: [{ type: "tool_use", id: "use-1", name, input: { q: "x" } }],
        model: "peer-model",
        stopReason: "toolUse",
      };
    }
    return {
      role: "assistant",
      content: { type: "text", text: `answer to ${firstText(request.params.messages[0].content)}` },
      model: "peer-model",
      stopReason: "endTurn",
    };
  });
  line.on("elicitation/create", (request) => {
    seen.elicitRequests.push(request.params);
    if (request.params.mode === "url") return { action: "accept" };
    return { action: "accept", content: { name: "Ada", age: 36 } };
  });
  line.on("roots/list", () => {
    seen.rootsServed++;
    return { roots: [{ uri: "file:///srv/project", name: "project" }] };
  });
  line.note("notifications/message", (note) => {
    seen.logs.push([note.params.level, note.params.logger, note.params.data]);
  });
  line.note("notifications/tools/list_changed", () => {
    seen.toolsChanged++;
  });
  line.note("notifications/resources/list_changed", () => {
    seen.resourcesChanged++;
  });
  line.note("notifications/prompts/list_changed", () => {
    seen.promptsChanged++;
  });
  line.note("notifications/elicitation/complete", (note) => {
    seen.elicitationsCompleted.push(note.params.elicitationId);
  });
  line.note("notifications/resources/updated", (note) => {
    seen.resourcesUpdated.push(note.params.uri);
  });

  await line.connect();
  seen.protocolVersion = line.version();
  if (line.transport().sessionId) seen.sessionId = line.transport().sessionId;
  seen.serverInfo = client.getServerVersion();
  seen.capabilities = client.getServerCapabilities();
  seen.instructions = client.getInstructions();

  const call = (name, args, more) => line.call({ name, arguments: args ?? {} }, more);
  const since = (revision) => seen.protocolVersion >= revision;
  const settle = async (condition) => {
    for (let round = 0; round < 50 && !condition(); round++) {
      await client.ping();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const failure = async (promise) => {
    try {
      return await promise;
    } catch (fault) {
      return { code: fault.code, message: fault.message };
    }
  };
  const pages = async (list, key) => {
    const entries = [];
    let cursor;
    do {
      const page = await list(cursor ? { cursor } : undefined);
      entries.push(...page[key]);
      cursor = page.nextCursor;
    } while (cursor);
    return entries;
  };
  const by = (entries, key) => Object.fromEntries(entries.map((entry) => [entry[key], entry]));

  seen.tools = by(await pages((params) => client.listTools(params), "tools"), "name");
  seen.add = await call("add", { a: 2, b: 3 });
  seen.echo = await call("echo", { text: "grüße \u{1f600} \u2028 end" });
  seen.slow = await call("slow", { steps: 3 }, {
    onprogress: ({ progress, total, message }) =>
      seen.progress.push([progress, total, message ?? null]),
  });
  seen.fail = await call("fail");
  seen.image = await call("image");
  seen.weather = await call("weather", { city: "Oslo" });
  const add = async (number) => [number, textOf(await call("add", { a: number, b: number }))];
  seen.many = await Promise.all(Array.from({ length: 32 }, (_, number) => add(number)));
  const large = "é".repeat(500_000);
  seen.large = textOf(await call("echo", { text: large })) === large;
  seen.media = await call("media");
  seen.show_meta = await line.call({
    name: "show_meta",
    arguments: {},
    _meta: { "interop/note": "kept" },
  });
  seen.ask_model = await call("ask_model", { prompt: "why?" });
  seen.list_my_roots = await call("list_my_roots");
  await client.sendRootsListChanged();
  await client.setLoggingLevel("warning");
  seen.log_all_levels = await call("log_all_levels");
  seen.ping_client = await call("ping_client");
  if ("elicit" in seen.tools && since("2025-06-18")) {
    seen.elicit = await call("elicit", { question: "who are you?" });
  }
  if ("elicit_url" in seen.tools && since("2025-11-25")) {
    seen.elicit_url = await call("elicit_url", { url: "https://example.test/sign-in" });
    seen.ask_with_tools = await call("ask_with_tools");
  }

  seen.resources = by(await pages((params) => client.listResources(params), "resources"), "uri");
  seen.templates = by(
    await pages((params) => client.listResourceTemplates(params), "resourceTemplates"),
    "uriTemplate",
  );
  seen.greeting = (await client.readResource({ uri: "interop://greeting" })).contents;
  seen.blob = (await client.readResource({ uri: "interop://blob" })).contents;
  seen.item = (await client.readResource({ uri: "interop://item/12" })).contents;
  await client.subscribeResource({ uri: "interop://greeting" });
  seen.touch = await call("touch", { uri: "interop://greeting" });
  await settle(() => seen.resourcesUpdated.length > 0);
  await client.unsubscribeResource({ uri: "interop://greeting" });
  seen.touchAgain = await call("touch", { uri: "interop://greeting" });

  seen.prompts = by(await pages((params) => client.listPrompts(params), "prompts"), "name");
  seen.review = await client.getPrompt({
    name: "review",
    arguments: { code: "x = 1", tone: "harsh" },
  });
  seen.complete = (
    await client.complete({
      ref: { type: "ref/prompt", name: "review" },
      argument: { name: "tone", value: "kind" },
    })
  ).completion;
  seen.completeTemplate = (
    await client.complete({
      ref: { type: "ref/resource", uri: "interop://item/{id}" },
      argument: { name: "id", value: "1" },
    })
  ).completion;

  seen.ping = await client.ping();
  seen.errors = {
    unknownTool: await failure(call("no_such_tool")),
    badArguments: await failure(call("add", { a: "x" })),
    unknownPrompt: await failure(client.getPrompt({ name: "no_such_prompt" })),
    missingArgument: await failure(client.getPrompt({ name: "review", arguments: {} })),
    unknownResource: await failure(client.readResource({ uri: "interop://nothing" })),
  };
  seen.grow = await call("grow");
  await settle(() => seen.promptsChanged > 0);
  const grown = await pages((params) => client.listTools(params), "tools");
  seen.toolsAfterGrow = grown.map((tool) => tool.name).sort();
  const more = await pages((params) => client.listResources(params), "resources");
  seen.resourcesAfterGrow = more.map((entry) => entry.uri).sort();
  const prompts = await pages((params) => client.listPrompts(params), "prompts");
  seen.promptsAfterGrow = prompts.map((prompt) => prompt.name).sort();

  if ("cut" in seen.tools) seen.cut = await call("cut");
  const stop = new AbortController();
  const hanging = failure(call("hang", {}, { signal: stop.signal }));
  const state = async () => JSON.parse((await call("hang_state")).content[0].text);
  while ((await state()).hanging !== 1);
  stop.abort("not needed");
  await hanging;
  let now;
  do now = await state();
  while (now.cancelled !== 1);
  seen.cancel = { state: now };

  await settle(() => seen.logs.length >= 5 && seen.progress.length >= 3);
  // The session of Streamable HTTP ends by a request of its own; its server forgets it.
  await line.transport().terminateSession?.();
  await client.close();
  console.log(JSON.stringify(seen, null, 1));
}

/** The text of a tool result. */
function textOf(result) {
  return result.content[0].text;
}

/** The text of a content block, or of the first block of an array (newer revisions allow both). */
function firstText(content) {
  return (Array.isArray(content) ? content[0] : content).text;
}
