// Server-sent events over fetch: an EventSource cannot send a key.

/** The events of a response, `{event, data}` with `data` from JSON. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    yield* blocks.map(parsed).filter(({ data }) => data !== undefined);
  }
}

function parsed(block) {
  const fields = block.split("\n").map((line) => line.split(/: ?(.*)/s));
  const { event, data } = Object.fromEntries(fields.filter(([name]) => name));
  return { event, data: data && JSON.parse(data) };
}
