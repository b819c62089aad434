// The source of trees and news: the server of the page, or the page itself.

/**
 * heads(run): the index of a run's trees. tree(run, place): one tree. containing(run, text): the places of the trees
 * with a text. next(): new data, or null if nothing has changed.
 */
const source = data.live ? liveSource() : savedSource();

function savedSource() {
  let packed = null;
  const inflated = async (run, place) => {
    packed ??= JSON.parse(document.getElementById("packed").textContent);
    const bytes = Uint8Array.from(atob(packed[run][place]), (char) => char.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  };
  return {
    heads: (run) => data.runs[run].trees.heads,
    tree: async (run, place) => JSON.parse(await inflated(run, place)),
    containing: async (run, text) => {
      const wanted = text.toLowerCase();
      const found = new Set();
      for (let place = 0; place < data.runs[run].trees.heads.length; place++)
        if (textsOf(JSON.parse(await inflated(run, place))).some((known) => known.toLowerCase().includes(wanted)))
          found.add(place);
      return found;
    },
    next: async () => null,
  };
}

/** Every text of a tree. */
function textsOf({ question, responses }) {
  const below = (node) => [node.text, node.note, node.answer, node.reason, ...(node.children ?? []).flatMap(below)];
  return [...Object.values(question).flat(), ...responses.flatMap(below)].filter(Boolean);
}

function liveSource() {
  const index = data.runs.map(() => ({ epoch: "", heads: [] }));
  let tag = "";
  const ask = async (address, query = {}) => {
    const answer = await fetch(`${address}?${new URLSearchParams(query)}`);
    if (!answer.ok) throw new Error((await answer.text()).trim() || `the server answered ${answer.status}`);
    return answer;
  };
  const grow = async (run, { epoch, count }) => {
    const known = index[run];
    if (known.epoch === epoch && known.heads.length === count) return;
    const found = await (await ask("heads.json", { run, epoch: known.epoch, first: known.heads.length })).json();
    index[run] = { epoch: found.epoch, heads: [...known.heads.slice(0, found.first), ...found.heads] };
  };
  return {
    heads: (run) => index[run].heads,
    tree: async (run, place) => (await ask("tree.json", { run, place, epoch: index[run].epoch })).json(),
    containing: async (run, text) => new Set((await (await ask("containing.json", { run, text })).json()).places),
    next: async () => {
      const answer = await ask("data.json");
      if (tag && answer.headers.get("ETag") === tag) return null;
      const fresh = await answer.json();
      await Promise.all(fresh.runs.map((run, at) => grow(at, run.trees)));
      tag = answer.headers.get("ETag");
      return fresh;
    },
  };
}
