// The chat page: asks the server that it came from, and shows every round as it is thought.

const state = { turns: [], key: sessionStorage.getItem("motif-key") ?? "", stop: null };
const headers = () => ({ "Content-Type": "application/json", ...(state.key ? { Authorization: `Bearer ${state.key}` } : {}) });

const about = el("p", { class: "about" });
const keyBox = el("input", { id: "key", type: "password", autocomplete: "off", value: state.key });
const keyForm = el(
  "form",
  { class: "ask", hidden: true, onsubmit: (event) => (event.preventDefault(), useKey()) },
  el("label", { for: "key" }, "API key"),
  keyBox,
  el("button", { type: "submit" }, "Use this key"),
);
const log = el("ol", { class: "turns", "aria-label": "Questions and answers" });
const box = el("textarea", { id: "question", rows: 2, placeholder: "What is 15 × 24?" });
const send = el("button", { type: "submit" }, "Send");
const memory = el("input", { type: "checkbox", id: "memory" });
const form = el(
  "form",
  { class: "ask", onsubmit: (event) => (event.preventDefault(), state.stop ? state.stop.abort() : ask(box.value.trim())) },
  el("label", { for: "question" }, "Question"),
  box,
  send,
  el("button", { type: "button", onclick: forget }, "New chat"),
  el("label", { for: "memory" }, memory, " Send the earlier questions and answers of this chat along"),
);
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!state.stop) form.requestSubmit();
});
document.getElementById("head").append(el("p", { class: "kicker" }, "motif serve"), el("h1", {}, "Chat"), about, keyForm);
main.append(log, form);

/** Says which model answers, or asks for a key. */
async function open() {
  const answer = await fetch("v1/models", { headers: headers() }).catch(() => null);
  keyForm.hidden = answer?.status !== 401;
  if (!answer) about.textContent = "The server does not answer.";
  else if (answer.status === 401) about.textContent = state.key ? "The server does not accept this key." : "This server asks for an API key. It stays in this tab.";
  else if (!answer.ok) about.textContent = await problem(answer);
  else {
    const [{ id, motif }] = (await answer.json()).data;
    state.model = id;
    const limits = [motif.tokens_first, ...Array(motif.rounds - 1).fill(motif.tokens_continue)];
    about.textContent = `${id}: ${motif.rounds === 1 ? "one round" : `${motif.rounds} rounds`} of at most ${[...new Set(limits)].join(", then ")} tokens. Only the note goes from round to round.`;
    box.focus();
  }
  document.documentElement.dataset.ready = "true";
}

function useKey() {
  state.key = keyBox.value.trim();
  sessionStorage.setItem("motif-key", state.key);
  open();
}

function forget() {
  state.stop?.abort();
  state.turns = [];
  log.replaceChildren();
  box.focus();
}

const problem = async (answer) => (await answer.json().catch(() => null))?.error?.message ?? `The server answered ${answer.status}.`;

async function ask(question) {
  if (!question) return;
  const turn = new Turn(question);
  log.append(turn.element);
  box.value = "";
  state.stop = new AbortController();
  send.textContent = "Stop";
  try {
    const messages = [...(memory.checked ? state.turns : []), { role: "user", content: question }];
    const body = JSON.stringify({ messages, stream: true });
    const answer = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body, signal: state.stop.signal });
    if (!answer.ok) throw new Error(await problem(answer));
    for await (const chunk of events(answer.body)) turn.take(chunk);
    state.turns.push({ role: "user", content: question }, { role: "assistant", content: turn.content });
    announce(`Answer: ${turn.given ?? turn.content}`);
  } catch (error) {
    turn.fail(error.name === "AbortError" ? "Stopped." : error.message);
  }
  state.stop = null;
  send.textContent = "Send";
  box.focus();
}

/** The JSON of each server-sent event. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection ended before the answer did.");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const text = part.replace(/^data: /, "");
      if (text === "[DONE]") return;
      const chunk = JSON.parse(text);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}

/** A question, the rounds of its answer, and the answer. */
class Turn {
  constructor(question) {
    this.content = "";
    this.rounds = el("div", { class: "rounds" });
    this.answer = el("p", { class: "given verbatim", dir: "auto" }, el("span", { class: "sub" }, "thinking…"));
    this.element = el("li", {}, el("p", { class: "asked verbatim", dir: "auto" }, question), this.rounds, this.answer);
  }

  take({ choices }) {
    const [{ delta, motif, finish_reason: reason } = {}] = choices;
    if (motif?.notice) this.rounds.append(el("p", { class: "notice" }, motif.notice));
    if (motif?.event === "round") this.begin(motif);
    else if (motif?.event === "text") this.text.append(delta.reasoning_content);
    else if (motif?.event === "note" || motif?.event === "end") this.end(motif);
    else if (motif?.event === "answer") this.show(motif.answer, delta.content);
    if (reason === "length") this.answer.append(el("span", { class: "sub" }, " (cut off by the token limit)"));
    form.scrollIntoView({ block: "end" });
  }

  begin({ round, of }) {
    this.text = el("pre", { class: "verbatim", dir: "auto", tabindex: 0, "aria-label": `Round ${round}: text` });
    this.round = el("details", { class: "part", open: true }, el("summary", {}, el("span", { class: "line" }, el("b", {}, `Round ${round} of ${of}`))), el("div", { class: "inside" }, this.text));
    this.rounds.append(this.round);
  }

  end({ note, round, truncated, completion_tokens: tokens, event }) {
    const line = [plural(tokens, "token"), truncated && "cut off"].filter(Boolean).join(", ");
    this.round.querySelector("summary > .line").append(el("span", { class: "sub" }, line));
    if (event === "note") this.rounds.append(el("p", { class: "handed verbatim", dir: "auto" }, el("span", { class: "sub" }, `Note to round ${round + 1} `), note || "(empty)"));
  }

  show(given, content) {
    [this.given, this.content] = [given, content];
    this.answer.replaceChildren(el("span", { class: "sub" }, "Answer "), el("b", {}, given ?? "none given"));
    if (content.replace(/\\boxed\{|\}/g, "").trim() !== (given ?? "")) this.answer.append(el("span", { class: "said" }, content));
  }

  fail(message) {
    this.answer.replaceChildren(el("span", { class: "trouble", role: "alert" }, message));
  }
}

open();
