// The ECGs of this session, in memory only, and how one of them is put to the server.

import { postForEvents, ServerError } from "/page/api.js";
import { t } from "/page/text.js";

const SCORE_KEYS = ["scores", "calibrated", "calibration", "uncalibrated", "thresholds", "verdicts"];
let nextId = 1;

/** A picture, or one page of a file. Of each model it keeps one run: answers, scores and the result as JSON. */
export function newItem(name, data, page = null) {
  return {
    id: nextId++,
    name,
    data,
    page,
    preview: null,
    samplingRate: null,
    correction: null,
    asIs: false,
    questions: [],
    runs: new Map(),
  };
}

/** The picture of an item in the body of a request. */
export function imageOf(item) {
  const { name, data, page, preview, samplingRate } = item;
  const correction = item.correction && { ...item.correction, size: [preview.width, preview.height] };
  return { images: [{ name, data, sampling_rate: samplingRate }], page, correction };
}

/** Note that questions are put to a model: they stand there, without answers, until their turn comes. */
export function noteQuestions(item, model, questions) {
  if (!item.runs.has(model)) item.runs.set(model, newRun(model));
  const run = item.runs.get(model);
  const answers = questions.map((question) => ({ question, answer: "", pending: true }));
  run.answers.push(...answers);
  Object.assign(run, { error: null, stage: run.stage || t("waiting"), waitingCount: run.waitingCount + 1 });
  return { run, answers };
}

/**
 * Fill in the answers of `noteQuestions`; `onChange` is called whenever there is something new.
 * The scores of all statements are asked for with the first questions.
 */
export async function askModel(item, { run, answers }, onChange) {
  const questions = answers.map(({ question }) => question);
  Object.assign(run, { stage: t("reading"), controller: new AbortController() });
  onChange("start", run);
  try {
    const options = { scores: !run.scores, stream: true, as_is: item.asIs, view: true };
    const body = { ...imageOf(item), model: run.model, questions, ...options };
    let isComplete = false;
    for await (const { name, data } of postForEvents("/v1/ask", body, run.controller.signal)) {
      receive(run, answers, name, data);
      isComplete ||= name === "result";
      onChange(name, run);
    }
    if (!isComplete) throw new ServerError(t("ended"));
  } catch (error) {
    run.answers = run.answers.filter((answer) => !answers.includes(answer)); // what broke off is no answer
    Object.assign(run, { error: explain(error), questions });
  } finally {
    run.waitingCount -= 1;
    run.stage = run.waitingCount ? t("waiting") : "";
    onChange("end", run);
  }
}

function newRun(model) {
  return { model, answers: [], scores: null, scoring: {}, result: null, stage: "", waitingCount: 0, error: null };
}

function receive(run, answers, name, data) {
  if (name === "queued") run.stage = data.position > 0 ? t("queued", { n: data.position }) : t("reading");
  else if (name === "reading") Object.assign(run, { result: { ...run.result, ...data }, stage: t("answering") });
  else if (name === "delta") answers[data.question].answer += data.text;
  else if (name === "answer") {
    const { answer, contradicted, understood } = data;
    Object.assign(answers[data.question], { answer, contradicted, understood, pending: false });
    if (!run.scores && answers.every(({ pending }) => !pending)) run.stage = t("scoring");
  } else if (name === "scores") takeScores(run, data);
  else if (name === "result") {
    data.answers.forEach((answer, i) => Object.assign(answers[i], answer, { pending: false }));
    run.result = { ...run.result, ...data };
    takeScores(run, data);
  } else if (name === "error") throw new ServerError(data.error.message, data.error);
}

/** None of a picture that cannot be read, and none of one lead alone. */
function takeScores(run, data) {
  if (!Object.keys(data.scores).length) return;
  run.scoring = Object.fromEntries(SCORE_KEYS.filter((key) => key in data).map((key) => [key, data[key]]));
  Object.assign(run, run.scoring);
}

/** An error as what is shown of it. */
export function explain(error) {
  if (error.name === "AbortError") return new ServerError(t("stopped"));
  return error.code === "unreachable" ? new ServerError(t("unreachable")) : error;
}

/** The complete result of a run, as `/v1/ask` would give it for all its questions at once. */
export function resultOf(run) {
  const { result: _place, ...facts } = run.result;
  const answers = run.answers.map(({ pending: _, ...answer }) => answer);
  const request = { ...facts.request, questions: answers.map(({ question }) => question) };
  return { ...facts, request, answers, ...run.scoring };
}
