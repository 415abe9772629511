// What is shown of one picture: answers, warnings, measurements, how it was read, and the bars of the statements.

import { button, element } from "/page/dom.js";
import { number, statementName, t, translate } from "/page/text.js";

const COLUMNS = [
  ["other", "rhythm", "conduction"],
  ["infarction", "hypertrophy"],
  ["ST-T", "form"],
]; // of groups

// Usual in adults at rest. QRS and axis: Surawicz et al., AHA/ACCF/HRS 2009 (III); QTc: Rautaharju et al., AHA/ACCF/HRS
// 2009 (IV), 450 ms in men; PR and rate: the limits of first degree AV block, sinus bradycardia and tachycardia.
const MEASUREMENTS = [
  { key: "rate_bpm", label: "rate", unit: "/min", range: [60, 100] },
  { key: "pr_ms", label: "pr", unit: "ms", range: [120, 200] },
  { key: "qrs_ms", label: "qrs", unit: "ms", range: [null, 110] },
  { key: "qt_ms", label: "qt", unit: "ms" },
  { key: "qtc_fridericia_ms", label: "qtc", unit: "ms", range: [390, 450] },
  { key: "qrs_axis_deg", label: "axis", unit: "°", range: [-30, 90] },
];

/** The warnings of a result, such as ST elevation. */
export function warningsOf(result) {
  return (result?.warnings ?? []).map((text) =>
    element("div", { class: "banner danger" }, element("strong", {}, t("warning")), element("p", {}, translate(text))),
  );
}

/** The answers of each model, side by side where there are two. */
export function answersOf(runs, mends) {
  return runs.map((run) =>
    element(
      "div",
      { class: "run" },
      runs.length > 1 && element("h3", { class: "run-model" }, run.model),
      run.error && failure(run, mends),
      run.result?.not_digitized_because && run.result.readable !== false && unread(run.result, mends),
      run.result?.readable === false
        ? refusal(run.result, mends)
        : run.answers.map((answer) => answerBlock(answer, runs.length > 1 ? "h4" : "h3")),
    ),
  );
}

function answerBlock(answer, heading) {
  const codes = Object.entries(answer.contradicted ?? {});
  return element(
    "article",
    { class: "answer" },
    element(heading, {}, answer.question),
    element("p", { class: answer.pending ? "text pending" : "text" }, translate(answer.answer)),
    answer.understood === false && element("p", { class: "tag" }, t("notUnderstood")),
    answer.original && element("p", { class: "hint" }, t("revision", { text: answer.original })),
    codes.length > 0 &&
      element(
        "div",
        { class: "banner amber" },
        element("strong", {}, t("takenBack")),
        element("p", {}, t("takenBackWhy")),
        element(
          "ul",
          {},
          codes.map(([code, p]) => element("li", {}, `${statementName(code)} `, element("b", {}, number(p, 2)))),
        ),
      ),
  );
}

function refusal(result, mends) {
  return mendable(t("refusal"), result.refusal_reason, [
    ...corrections(mends),
    ["asItIs", mends.asItIs],
    ...others(result, mends),
  ]);
}

/** An answer about a picture of which the leads could not be read. */
function unread(result, mends) {
  const actions = [...corrections(mends), ...others(result, mends)];
  return mendable(t("notDigitized"), result.not_digitized_because, actions, t("unreadWhy"));
}

const corrections = (mends) => [
  ["markCorners", mends.corners],
  ["turnLeft", () => mends.turn(270)],
  ["turnRight", () => mends.turn(90)],
  ["turnOver", () => mends.turn(180)],
];
const others = (result, mends) => [
  ...(result.pages > 1 ? [["pickPage", mends.pickPage]] : []),
  ["otherPicture", mends.otherPicture],
];

/** What is wrong, and the buttons that mend it. */
function mendable(title, reason, actions, why) {
  return element(
    "div",
    { class: "banner amber refusal" },
    element("strong", {}, title),
    element("p", {}, translate(reason)),
    why && element("p", {}, why),
    element("p", { class: "hint" }, t("refusalHelp")),
    element(
      "div",
      { class: "tools" },
      actions.map(([key, action], i) => button(t(key), action, { class: i ? "" : "primary" })),
    ),
  );
}

function failure({ error, ...run }, mends) {
  const again = button(t("tryAgain"), () => mends.tryAgain(run), { class: "primary" });
  countDown(again, error.retryAfter ?? 0);
  const mend = /sampling.rate/.test(error.message) ? samplingRate(mends) : again;
  return element(
    "div",
    { class: "banner danger" },
    element("p", {}, translate(error.message)),
    element("div", { class: "tools" }, mend),
  );
}

/** The field for what a waveform file does not give. */
function samplingRate(mends) {
  const field = element("input", { type: "number", min: 1, max: 100000, step: "any", value: 500, required: true });
  const submit = (event) => {
    event.preventDefault();
    mends.samplingRate(field.valueAsNumber);
  };
  const label = element("label", {}, `${t("samplingRate")} `, field);
  return element(
    "form",
    { class: "tools", on: { submit } },
    label,
    element("button", { class: "primary" }, t("readAgain")),
  );
}

function countDown(node, seconds) {
  node.disabled = seconds > 0;
  node.textContent = seconds > 0 ? t("tryAgainIn", { n: seconds }) : t("tryAgain");
  if (seconds > 0) setTimeout(() => countDown(node, seconds - 1), 1000);
}

/** The measurements, each with the range that is usual in adults, and what they were made on. */
export function measurementsOf(result) {
  if (!result)
    return element(
      "div",
      { class: "tiles ghost", "aria-hidden": "true" },
      MEASUREMENTS.map(() => element("div", { class: "tile" })),
    );
  const values = result.measurements ?? {};
  if (!Object.keys(values).length) return element("p", { class: "hint" }, t("measuredNothing"));
  return [
    element("p", { class: "hint" }, t(`measuredOn.${result.measured_on}`)),
    element(
      "dl",
      { class: "tiles" },
      MEASUREMENTS.map((m) => tile(m, values[m.key])),
      stTile(result.st_elevation_mv ?? {}),
    ),
  ];
}

function tile({ label, unit, range }, value) {
  const [low, high] = range ?? [null, null];
  const verdict =
    value == null ? "" : low != null && value < low ? "below" : high != null && value > high ? "above" : "";
  const words = low == null ? `≤ ${number(high)}` : `${number(low)} – ${number(high)}`;
  return element(
    "div",
    { class: verdict ? "tile outside" : "tile" },
    element("dt", {}, t(label)),
    element(
      "dd",
      {},
      value == null
        ? element("span", { class: "none" }, t("notMeasurable"))
        : [element("b", {}, number(value)), ` ${unit}`],
      range && element("small", {}, verdict ? `${t(verdict)} · ` : "", t("usual", { range: words })),
    ),
  );
}

function stTile(elevation) {
  const leads = Object.entries(elevation);
  const text = leads.map(([lead, mv]) => `${lead} ${number(mv, 2)} mV`.replaceAll(" ", "\u00a0")).join(", ");
  return element(
    "div",
    { class: leads.length ? "tile broad outside severe" : "tile broad" },
    element("dt", {}, t("st")),
    element("dd", {}, leads.length ? element("b", {}, text) : element("span", { class: "none" }, t("stNone"))),
  );
}

/** How the page was read: format, speed, gain, leads, and what the model was shown. */
export function howOf(result, correction) {
  if (!result) return null;
  const page = result.page_as_read;
  const rows = page ? rowsOfPage(page) : [];
  rows.push([t("shownToModel"), t(`views.${result.view}`) + (correction ? `, ${t("corrected")}` : "")]);
  rows.push([t("answeredBy"), `${result.model}, ecg-vlm ${result.version}`]);
  if (result.not_digitized_because) rows.push([t("notDigitized"), translate(result.not_digitized_because)]);
  return element(
    "details",
    { class: "how" },
    element("summary", {}, t("how")),
    element(
      "dl",
      {},
      rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    ),
  );
}

function rowsOfPage(page) {
  const origin = (from) => t({ print: "fromPrint", pulse: "fromPulse", grid: "fromGrid" }[from] ?? "assumed");
  const names = new Set(page.leads.map((lead) => lead.lead));
  const leads = [
    t("leadsRead", { n: names.size }),
    page.missing_leads.length ? t("missing", { leads: page.missing_leads.join(", ") }) : "",
  ];
  return [
    ...(page.layout ? [[t("format"), page.layout]] : []),
    [t("speed"), `${number(page.mm_per_s, page.mm_per_s % 1 ? 1 : 0)} mm/s, ${origin(page.mm_per_s_from)}`],
    [t("gain"), `${number(page.mm_per_mv, page.mm_per_mv % 1 ? 1 : 0)} mm/mV, ${origin(page.mm_per_mv_from)}`],
    [t("leadCount"), leads.filter(Boolean).join("; ")],
    ...page.remarks.map((remark) => [t("remark"), translate(remark)]),
  ];
}

/** The bars of all statements by group; of two models, two bars each. On a narrow screen groups without any stay closed. */
export function scoresOf(runs, statements, narrow) {
  const withScores = runs.filter((run) => run.scores);
  const result = runs[0]?.result;
  const isOver = result?.answers && !runs[0].stage;
  const reason = translate(result?.no_scores_because) ?? t(isOver ? "notScored" : "noScores");
  if (!withScores.length) return element("p", { class: "hint" }, reason);
  const group = (name) =>
    groupOf(
      name,
      statements.filter((statement) => statement.group === name),
      withScores,
      narrow,
    );
  return element(
    "div",
    { class: "groups" },
    COLUMNS.map((names) => element("div", {}, names.map(group))),
  );
}

function groupOf(name, statements, runs, narrow) {
  if (!statements.length) return null;
  const [first] = runs;
  const rank = ({ code }) => first.verdicts[code] + first.scores[code]; // what is present, then what is likely
  const rows = [...statements].sort((a, b) => rank(b) - rank(a));
  const count = rows.filter((s) => first.verdicts[s.code]).length;
  return element(
    "details",
    { class: "group", open: !narrow || count > 0 },
    element(
      "summary",
      {},
      element("span", { class: "group-name" }, t(`groups.${name}`)),
      element("span", { class: "group-count" }, t("groupCount", { n: count, all: rows.length })),
    ),
    element(
      "ul",
      {},
      rows.map((s) => rowOf(s, runs)),
    ),
  );
}

function rowOf({ code }, runs) {
  return element(
    "li",
    { class: runs.some((run) => run.verdicts[code]) ? "row over" : "row" },
    element("span", { class: "row-name", title: code }, statementName(code)),
    runs.map((run) => [bar(run, code), valueOf(run, code, runs.length > 1)]),
  );
}

/** A probability; what a screen reader is told besides stands in the bar for the eye. */
function valueOf(run, code, withModel) {
  const verdict = t(run.verdicts[code] ? "present" : "notPresent", { p: number(run.thresholds[code], 2) });
  return element(
    "span",
    { class: "row-value" },
    withModel && element("span", { class: "visually-hidden" }, `${run.model} `),
    number(run.scores[code], 2),
    run.uncalibrated?.includes(code) && element("span", { class: "raw", title: t("notCalibrated") }, "*"),
    element("span", { class: "visually-hidden" }, `, ${verdict}`),
  );
}

function bar(run, code) {
  const length = element("span", { class: run.verdicts[code] ? "bar-fill over" : "bar-fill" });
  const mark = element("span", { class: "bar-mark" });
  length.style.width = `${100 * run.scores[code]}%`;
  mark.style.left = `${100 * run.thresholds[code]}%`;
  return element("span", { class: "bar-track", "aria-hidden": "true" }, length, mark);
}
