// The ECGs of this session, in memory only, and how one of them is put to the server.

import { postForEvents, ServerError } from "/page/api.js";
import { currentLanguage, t } from "/page/text.js";

let nextId = 1;

/** A picture, or one page of a file. Of each model it keeps one run: answers, scores and the result as JSON. */
export function newItem(name, data, page = null) {
  return { id: nextId++, name, data, page, preview: null, correction: null, asIs: false, questions: [], runs: new Map() };
}

/** The picture of an item in the body of a request. */
export function imageOf(item) {
  const { name, data, page, preview } = item;
  const correction = item.correction && { ...item.correction, size: [preview.width, preview.height] };
  return { images: [{ name, data }], page, correction };
}

/**
 * Put questions about an item to one model; `onChange` is called whenever its run has something new.
 * The scores of all statements are asked for with the first questions.
 */
export async function askModel(item, model, questions, onChange) {
  const run = item.runs.get(model) ?? newRun(model);
  item.runs.set(model, run);
  const first = run.answers.length;
  run.answers.push(...questions.map((question) => ({ question, answer: "", pending: true })));
  Object.assign(run, { error: null, stage: t("waiting"), controller: new AbortController() });
  onChange("start", run);
  try {
    const options = { scores: !run.scores, stream: true, as_is: item.asIs, view: true, language: currentLanguage() };
    const body = { ...imageOf(item), model: model || null, questions, ...options };
    let isComplete = false;
    for await (const { name, data } of postForEvents("/v1/ask", body, run.controller.signal)) {
      receive(run, first, name, data);
      isComplete ||= name === "result";
      onChange(name, run);
    }
    if (!isComplete) throw new ServerError(t("ended"));
  } catch (error) {
    run.answers.length = first; // what broke off is no answer
    run.error = explain(error);
    run.questions = questions;
  } finally {
    run.stage = "";
    onChange("end", run);
  }
}

function newRun(model) {
  return { model, answers: [], scores: null, thresholds: null, calibrated: false, result: null, stage: "", error: null };
}

function receive(run, first, name, data) {
  if (name === "queued") run.stage = data.position > 0 ? t("queued", { n: data.position }) : t("reading");
  else if (name === "reading") Object.assign(run, { result: { ...run.result, ...data }, stage: t("answering") });
  else if (name === "delta") run.answers[first + data.question].answer += data.text;
  else if (name === "answer") {
    const { answer, contradicted, understood } = data;
    Object.assign(run.answers[first + data.question], { answer, contradicted, understood, pending: false });
    if (!run.scores) run.stage = t("scoring");
  } else if (name === "scores") takeScores(run, data);
  else if (name === "result") {
    data.answers.forEach((answer, i) => (run.answers[first + i] = answer));
    run.result = { ...run.result, ...data };
    if (Object.keys(data.scores ?? {}).length) takeScores(run, data);
  } else if (name === "error") throw new ServerError(data.error.message, data.error);
}

function takeScores(run, { scores, calibrated, thresholds }) {
  Object.assign(run, { scores, calibrated, thresholds });
}

function explain(error) {
  if (error.name === "AbortError") return new ServerError(t("stopped"));
  if (error instanceof ServerError) return error;
  return new ServerError(error instanceof TypeError ? t("unreachable") : error.message);
}

/** The complete result of a run, as `/v1/ask` would give it for all its questions at once. */
export function resultOf(run) {
  const { result: _, ...facts } = run.result;
  return { ...facts, answers: run.answers, scores: run.scores ?? {} };
}
